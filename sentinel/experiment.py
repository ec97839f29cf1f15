"""The main job: measure, then prune, compensate and heal per cycle, measure, export.

Reads a spec, writes an output folder, tells a reporter. Every cycle ends with a state folder from which a killed run
goes on to the same weights; a long healing leaves some on its way. Knows no database and no HTTP.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from sentinel.controller.measurements import Measurements, Outcome
from sentinel.controller.metrics import series
from sentinel.events import CheckpointSaved, Finished, Phase, Reporter
from sentinel.grow_spec import Grow
from sentinel.heal_report import ExchangeObserver, HealingObserver
from sentinel.heal_spec import Heal
from sentinel.inputs import Inputs, check_inputs, load_inputs
from sentinel.locating import NOTHING, locate
from sentinel.manifest import Sources, model_folder, read_sources
from sentinel.measuring import continue_prompts, measure, task_results
from sentinel.memory_budget import MemoryBudget
from sentinel.model_limits import ModelLimits
from sentinel.models import document_isolation
from sentinel.models.evaluation import PROTOCOL, compare, mean_loss
from sentinel.models.families.base import Unit
from sentinel.models.loaders.weights import load_weights
from sentinel.outputs import describe, write_checkpoint, write_unfinished
from sentinel.pinning import pin, resolve_commits
from sentinel.planning import Plan, Planner
from sentinel.plasticity import Exchange
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.fine_tuning.keeping import PeriodicKeeper
from sentinel.pruning.levels import cost_for, units_of
from sentinel.pruning.pruning_module import PruningModule, Selection
from sentinel.result import (
    RESULT_FILE,
    CostRecord,
    CycleRecord,
    DecisionRecord,
    Measurement,
    Memory,
    Protocol,
    PrunedMeasurement,
    Result,
    Signals,
    TaskResult,
)
from sentinel.spec import Spec
from sentinel.stress.protocol import stress
from sentinel.stress_result import StressResult
from sentinel.utils.checkpoints.cycle_state import (
    CHECKPOINT_FOLDER,
    METRICS_FILE,
    TRAINING_FOLDER,
    CycleState,
    Healing,
    Source,
    load_state,
    save_state,
    spec_digest,
    state_folder,
)
from sentinel.utils.metrics_log import MetricsLog
from sentinel.utils.progress_tracker import ProgressTracker
from sentinel.utils.series import read_series
from sentinel.watching import healing_slope, measurements, signals_of

STATE_FOLDER = "state"


def run(
    spec: Spec,
    *,
    output: Path,
    reporter: Reporter,
    resume: Path | None = None,
    allowed_roots: Sequence[Path] | None = None,
    fetched: Mapping[str, Path] = NOTHING,
    limits: ModelLimits | None = None,
    memory_bytes: int | None = None,
    save_interval_s: float = 60.0,
) -> Result:
    """Run one experiment.

    Writes `checkpoint/`, `result.json`, `metrics.jsonl` and `plots/` under `output`, and after each
    cycle, and now and then while it heals, a folder under `output/state`.

    Args:
        spec: What to run.
        output: Folder to write to; made if absent.
        reporter: Hears every event; the last one is `Finished`.
        resume: A state folder of an earlier run of the same spec.
        allowed_roots: Folders that `source: path` may read from; None allows any.
        fetched: What the spec names by ids: see `locate`.
        limits: How large the model may be; None does not ask.
        memory_bytes: What there is for the run on its device; None does not ask.
        save_interval_s: Seconds of healing after which its state is saved, at the next of `save_every` steps;
            0 at every one.

    Raises:
        SentinelError: One of its subclasses, for everything that can be foreseen.
    """
    output.mkdir(parents=True, exist_ok=True)
    with MetricsLog(output / METRICS_FILE, reporter, earlier=resume / METRICS_FILE if resume else None) as log:
        tracker = ProgressTracker(log, earlier=read_series(resume) if resume else {})
        torch.manual_seed(spec.seed)
        budget = MemoryBudget(spec, log, limits=limits, memory_bytes=memory_bytes)
        state = load_state(resume, spec) if resume else None
        with tracker.phase(Phase.LOADING):
            commits = resolve_commits(spec, known=state.commits if state else {})
            pinned = pin(spec, commits)
            inputs = load_inputs(pinned, allowed_roots=allowed_roots, fetched=fetched, admit=budget.admit)
            for doubt in inputs.doubts:
                tracker.message(doubt, level="warning")
            check_inputs(spec, inputs)
        run_ = _Run(
            spec,
            inputs,
            sources=read_sources(pinned, fetched),
            model_folder=model_folder(locate(pinned, fetched).model),
            commits=commits,
            output=output,
            reporter=log,
            tracker=tracker,
            resume=resume,
            state=state,
            save_interval_s=save_interval_s,
        )
        result = run_.result(budget)
        log.emit(Finished(result=result.model_dump(mode="json")))
        return result


class _Run:
    """One run's moving parts."""

    def __init__(
        self,
        spec: Spec,
        inputs: Inputs,
        *,
        sources: Sources,
        model_folder: Path,
        commits: Mapping[Source, str],
        output: Path,
        reporter: Reporter,
        tracker: ProgressTracker,
        resume: Path | None,
        state: CycleState | None,
        save_interval_s: float,
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.output = output
        self.reporter = reporter
        self.tracker = tracker
        self.save_interval_s = save_interval_s
        self.sources = sources
        self.commits = commits
        self.steps = steps_per_cycle(spec.heal, inputs.training) if spec.heal else 0
        exchange_steps = spec.grow.steps if spec.grow else 0
        tracker.plan(cycles=spec.prune.cycles, steps_per_cycle=self.steps + exchange_steps)
        self.planner = Planner(
            spec, steps=self.steps, model_folder=model_folder, state=state.controller if state else None
        )
        self.records = list(state.records) if state else []
        self._is_first = state is None
        self._dense: float | None = None
        self._healing = state.healing if state else None
        self._training = resume / TRAINING_FOLDER if resume and self._healing and not self._healing.done else None
        self.module = PruningModule(copy.deepcopy(inputs.dense), inputs.family, kept=state.kept if state else None)
        if resume and state:
            load_weights(resume / CHECKPOINT_FOLDER, self.module.model)
            tracker.add_timings(state.timings_s)
            self._tell_where(state)

    def _tell_where(self, state: CycleState) -> None:
        where, cuts, steps = f"after cycle {state.cycle}", state.cycle, self._steps_taken()
        if state.healing:
            where = f"at step {state.healing.step} of healing cycle {state.cycle + 1}"
            cuts, steps = cuts + 1, steps + state.healing.step
        self.tracker.advance(cuts=cuts, steps=steps)
        self.tracker.message(f"Resumed {where} of {self.spec.prune.cycles}.")

    def result(self, budget: MemoryBudget) -> Result:
        """Run the cycles that are left, then measure and export."""
        with self.tracker.phase(Phase.MEASURING):
            # First, because a prompt that is too long or a broken task must not fail the run at its end.
            dense_samples = continue_prompts(self.inputs.dense, self.inputs.tokenizer, self.spec.evaluate)
            dense_scores = self.inputs.tasks.scores(self.inputs.dense, self.inputs.tokenizer)
            if self._is_first:
                self._dense_loss()
        for cycle in range(len(self.records) + 1, self.spec.prune.cycles + 1):
            if self._went_too_far():
                break
            self._cycle(cycle)
        with self.tracker.phase(Phase.EVALUATING):
            dense, pruned = measure(self.inputs, self.module.model, self.spec.evaluate, dense_samples=dense_samples)
            self.tracker.metric("kl_to_dense", pruned.kl_to_dense)
            self.tracker.metric("agreement", pruned.agreement)
            tasks = task_results(dense_scores, self.inputs.tasks.scores(self.module.model, self.inputs.tokenizer))
            stressed = self._stressed()
        with self.tracker.phase(Phase.EXPORTING):
            form = write_checkpoint(self.spec, self.inputs, self.module, self.output / CHECKPOINT_FOLDER)
            self.planner.save(self.output / CHECKPOINT_FOLDER)
        memory = budget.taken()
        self.tracker.message(memory.sentence())
        result = self._result(dense, pruned, tasks, stressed, form=form, memory=memory)
        (self.output / RESULT_FILE).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        describe(
            self.spec,
            self.inputs,
            self.module,
            result,
            series=self.tracker.series,
            sources=self.sources,
            output=self.output,
        )
        return result

    def _stressed(self) -> StressResult | None:
        section = self.spec.evaluate.stress
        if section is None:
            return None
        return stress(self.inputs, self.module.model, section, seed=self.spec.seed, tell=self.tracker.message)

    def _steps_taken(self) -> int:
        return sum(record.healing_steps + record.exchange_steps for record in self.records)

    def _cycle(self, cycle: int) -> None:
        if self._healing:
            record, plan = self._healing.record, self.planner.resumed(self.records, self._healing.record)
        else:
            record, plan = self._begin(cycle)
        if plan.heal and not (self._healing and self._healing.done):
            record = self._heal(record, plan.heal)
        if plan.grow and plan.heal:
            record = self._grow(record, plan, plan.grow, plan.heal)
        self._healing = None
        self.records.append(record)
        if plan.decision:
            loss = mean_loss(self.module.model, self.inputs.held_out)
            self.planner.learn(Outcome(cycle=cycle, loss=loss, steps=record.healing_steps))
        self.tracker.advance(cuts=cycle, steps=self._steps_taken())
        self._save()

    def _begin(self, cycle: int) -> tuple[CycleRecord, Plan]:
        """Look, plan and cut; the record of the cycle so far."""
        if not (self.spec.grow or self.spec.controller):
            plan = self.planner.scheduled(self.records)
            return self._cut(cycle, plan), plan
        with self.tracker.phase(Phase.MEASURING, cycle=cycle):
            signals = signals_of(self.module, self.inputs.calibration)
            plan = self.planner.plan(self.records, partial(self._measurements, signals))
            if plan.decision:
                self._tell(cycle, plan.decision)
        record = self._cut(cycle, plan)
        watched = mean_loss(self.module.model, self.inputs.held_out) if plan.decision else None
        return record.model_copy(
            update={"signals": signals, "decision": plan.decision, "watched_cut_loss": watched}
        ), plan

    def _tell(self, cycle: int, decision: DecisionRecord) -> None:
        for name, value in series(decision).items():
            self.tracker.metric(name, value)
        self.tracker.message(f"Cycle {cycle}: {decision.reason}")

    def _measurements(self, signals: Signals, steps_left: int, progress: float, planned: float) -> Measurements:
        return measurements(
            self.module,
            self.inputs,
            signals,
            self.records,
            cycles=self.spec.prune.cycles,
            steps_per_cycle=self.steps,
            steps_left=steps_left,
            progress=progress,
            planned=planned,
        )

    def _cut(self, cycle: int, plan: Plan) -> CycleRecord:
        with self.tracker.phase(Phase.PRUNING, cycle=cycle):
            calibration = self._calibration()
            selection = self.module.select(calibration, plan.prune, before=plan.before, progress=plan.progress)
            removed, compensation = self.module.cut(calibration, selection.cut, compensation=plan.prune.compensation)
            loss = self._held_out_loss("pruned")
        self.tracker.message(f"Cycle {cycle}: {self._summary(removed)}; held-out loss {loss:.4f}.")
        return CycleRecord(
            cycle=cycle,
            sparsity=self.module.sparsity,
            cost=self._cost(selection),
            removed=removed,
            evaluations=selection.evaluations,
            loss_before_healing=loss,
            loss=loss,
            compensation=compensation,
        )

    def _calibration(self) -> Calibration:
        seed = self.spec.seed + len(self.records)
        return self.module.calibration(self.inputs.calibration, self.spec.prune, seed=seed)

    def _cost(self, selection: Selection) -> CostRecord:
        measured = cost_for(self.spec.prune, self._calibration()).total
        kind = self.spec.prune.target.kind
        return CostRecord(kind=kind, goal=selection.goal, predicted=selection.predicted, measured=measured)

    def _summary(self, removed: Mapping[Unit, Mapping[int, Sequence[int]]]) -> str:
        """What a cycle cut, and what is left, of the units that the spec prunes."""
        parts = []
        for unit in units_of(self.spec.prune.units):
            cut = sum(map(len, removed.get(unit, {}).values()))
            left, dense = sum(map(len, self.module.kept[unit])), sum(self.module.dense_counts[unit])
            parts.append(f"cut {cut} {unit} group(s), {left} of {dense} left")
        return ", ".join(parts)

    def _went_too_far(self) -> bool:
        """Whether the last cycle raised the held-out loss beyond the spec's limit; says so."""
        limit = self.spec.prune.max_loss_increase
        if limit is None or not self.records:
            return False
        increase = self.records[-1].loss - self._dense_loss()
        if increase <= limit:
            return False
        self.tracker.message(
            f"Stopped after cycle {len(self.records)} of {self.spec.prune.cycles}: the held-out loss is {increase:.4f} "
            f"above the dense model's, more than prune.max_loss_increase {limit:g}.",
            level="warning",
        )
        return True

    def _dense_loss(self) -> float:
        if self._dense is None:
            self._dense = mean_loss(self.inputs.dense, self.inputs.evaluation)
            if self._is_first:
                self.tracker.metric("dense_loss", self._dense)
        return self._dense

    def _heal(self, record: CycleRecord, heal: Heal) -> CycleRecord:
        """The record with what came of its healing."""
        cycle, steps = record.cycle, steps_per_cycle(heal, self.inputs.training)
        tuner = FineTuner(heal=heal, dense=self.inputs.dense)
        observer = HealingObserver(self.tracker, cycle=cycle, steps_before=self._steps_taken())
        keeper = PeriodicKeeper(partial(self._save_healing, record), interval_s=self.save_interval_s)
        with self.tracker.phase(Phase.HEALING, cycle=cycle):
            tuner.fine_tune(
                self.module.model,
                self.inputs.training,
                seed=self.spec.seed + cycle,
                held_out=self.inputs.held_out,
                observer=observer,
                keeper=keeper,
                resume=self._training,
            )
            self._healing, self._training = None, None
            loss = self._held_out_loss("healed")
        slope = healing_slope(self.tracker.series["healing_loss"], steps=steps)
        return record.model_copy(update={"loss": loss, "healing_steps": steps, "healing_slope": slope})

    def _grow(self, record: CycleRecord, plan: Plan, how: Grow, heal: Heal) -> CycleRecord:
        """The record with what was exchanged in the cycle, which is behind its healing."""
        cycle, steps_before = record.cycle, self._steps_taken() + record.healing_steps
        if self._healing is None:
            self._save(Healing(record=record, step=record.healing_steps, done=True))
        exchange = Exchange(
            inputs=self.inputs,
            prune=plan.prune,
            how=how,
            heal=heal,
            seed=self.spec.seed + cycle,
            progress=plan.progress,
            layers=plan.grow_layers,
        )
        with self.tracker.phase(Phase.GROWING, cycle=cycle):
            observer = ExchangeObserver(self.tracker, cycle=cycle, steps_before=steps_before)
            tried = exchange.attempt(self.module, observer)
            if tried is None:
                self.tracker.message(f"Cycle {cycle}: there is nothing that could grow.")
                return record
            self.module, growth = tried
            self._held_out_loss("grown")
        self.tracker.message(f"Cycle {cycle}: grew {_numbers(growth.grown)}. {growth.reason}")
        return record.model_copy(update={"growth": growth, "exchange_steps": how.steps})

    def _held_out_loss(self, stage: str) -> float:
        """Of the model as it is; recorded under the stage's name with the divergence from the dense one."""
        found = compare(self.inputs.dense, self.module.model, self.inputs.evaluation)
        self.tracker.metric(f"{stage}_loss", found.pruned_loss)
        self.tracker.metric(f"{stage}_kl", found.kl_to_dense)
        return found.pruned_loss

    def _save_healing(self, record: CycleRecord, step: int, write_training: Callable[[Path], None]) -> None:
        self._save(Healing(record=record, step=step), write_training)

    def _save(self, healing: Healing | None = None, write_training: Callable[[Path], None] | None = None) -> None:
        cycle, step = len(self.records), healing.step if healing else None
        folder = state_folder(self.output / STATE_FOLDER, cycle, step=step)
        state = CycleState(
            spec_sha256=spec_digest(self.spec),
            cycle=cycle,
            kept=self.module.kept,
            records=self.records,
            commits=dict(self.commits),
            healing=healing,
            controller=self.planner.state(),
            timings_s=dict(self.tracker.timings_s),
        )
        save_state(
            folder,
            state,
            self.output / METRICS_FILE,
            write_checkpoint=partial(write_unfinished, self.inputs, self.module),
            write_training=write_training,
        )
        self.reporter.emit(CheckpointSaved(cycle=cycle, step=step, directory=str(folder)))

    def _result(
        self,
        dense: Measurement,
        pruned: PrunedMeasurement,
        tasks: list[TaskResult],
        stressed: StressResult | None,
        *,
        form: str,
        memory: Memory,
    ) -> Result:
        windows, length = self.inputs.evaluation.shape
        return Result(
            dense=dense,
            pruned=pruned,
            tasks=tasks,
            cycles=self.records,
            removed=self.module.removed,
            export_form=form,
            protocol=Protocol(
                text=self.inputs.text,
                sequence_length=length,
                windows=windows,
                tokens=windows * (length - 1),
                description=f"{PROTOCOL} {document_isolation.PROTOCOL}"
                if self.spec.data.isolate_documents
                else PROTOCOL,
            ),
            timings_s={phase: round(seconds, 3) for phase, seconds in self.tracker.timings_s.items()},
            memory=memory,
            checkpoint=str(self.output / CHECKPOINT_FOLDER),
            stress=stressed,
        )


def _numbers(groups: Mapping[str, Mapping[int, Sequence[int]]]) -> str:
    """How many groups of each unit."""
    return ", ".join(f"{sum(map(len, layers.values()))} {unit} group(s)" for unit, layers in groups.items())
