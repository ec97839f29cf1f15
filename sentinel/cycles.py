"""The cycles of one run: look, plan, cut, heal, exchange. Every one ends with a state that a run can go on from.

Knows neither how a run begins nor what is made of its model at the end.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sentinel.attempt import Attempt
from sentinel.controller.measurements import Measurements, Outcome
from sentinel.controller.metrics import series
from sentinel.events import Phase
from sentinel.grow_spec import Grow
from sentinel.heal_report import HealingObserver
from sentinel.heal_spec import Heal
from sentinel.models.adaptive.states import History
from sentinel.models.evaluation import compare, mean_loss
from sentinel.models.loaders.weights import load_weights
from sentinel.outputs import write_unfinished
from sentinel.planning import Plan, Planner
from sentinel.plasticity import Exchange
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.consolidation import consolidate, sentences, union
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.fine_tuning.keeping import PeriodicKeeper
from sentinel.pruning.levels import cost_for, units_of
from sentinel.pruning.pruning_module import PruningModule, Selection
from sentinel.result import CostRecord, CycleRecord, DecisionRecord, MergeRecord, Signals, WarmUpRecord
from sentinel.states import changes_in, history_of, states_of
from sentinel.utils.checkpoints.cycle_state import (
    CHECKPOINT_FOLDER,
    TRAINING_FOLDER,
    CycleState,
    Healing,
    spec_digest,
)
from sentinel.watching import healing_slope, measurements, signals_of


class Cycles:
    """One run's cycles.

    Args:
        attempt: What is asked for, and where it begins: at the dense model, or where an earlier attempt was left.
        model_folder: Where the model was loaded from.
        warm_up: What the dense model was trained by; None where it is as it was loaded.

    Attributes:
        module: The model as it is now.
        records: One per finished cycle.
        planner: Knows what a controller has learnt.
        warm_up: As it was given.
    """

    def __init__(self, attempt: Attempt, *, model_folder: Path, warm_up: WarmUpRecord | None) -> None:
        spec, inputs, tracker = attempt.spec, attempt.inputs, attempt.tracker
        resume, state = attempt.resume, attempt.state
        self._attempt, self._spec, self._inputs, self._tracker = attempt, spec, inputs, tracker
        self.warm_up = warm_up
        self._steps_before = warm_up.steps if warm_up else 0
        self._steps = steps_per_cycle(spec.heal, inputs.training) if spec.heal else 0
        exchange_steps = spec.grow.steps if spec.grow else 0
        tracker.plan(
            cycles=spec.prune.cycles,
            steps_per_cycle=self._steps + exchange_steps,
            steps_before=self._steps_before,
        )
        self.planner = Planner(
            spec, steps=self._steps, model_folder=model_folder, state=state.controller if state else None
        )
        self.records = list(state.records) if state else []
        # On the text that decisions are made by: of the dense model, and of this one as the last cycle left it.
        self._watched_dense: float | None = None
        self._watched: float | None = None
        self._healing = state.healing if state else None
        self._training = resume / TRAINING_FOLDER if resume and self._healing and not self._healing.done else None
        self.module = PruningModule(copy.deepcopy(inputs.dense), inputs.family, kept=state.kept if state else None)
        if resume and state:
            load_weights(resume / CHECKPOINT_FOLDER, self.module.model)
            tracker.add_timings(state.timings_s)
            self._tell_where(state)

    def _tell_where(self, state: CycleState) -> None:
        where = f"after cycle {state.cycle}" if state.cycle else "before cycle 1"
        cuts, steps = state.cycle, self._steps_taken()
        if state.healing:
            where = f"at step {state.healing.step} of healing cycle {state.cycle + 1}"
            cuts, steps = cuts + 1, steps + state.healing.step
        self._tracker.advance(cuts=cuts, steps=steps)
        self._tracker.message(f"Resumed {where} of {self._spec.prune.cycles}.")

    def measure_dense(self) -> None:
        """Record the dense model's loss, unless that has been done."""
        self._dense_loss()

    def run(self) -> None:
        """Run those that are left."""
        for cycle in range(len(self.records) + 1, self._spec.prune.cycles + 1):
            if self._went_too_far():
                break
            self._cycle(cycle)

    def _steps_taken(self) -> int:
        return self._steps_before + sum(record.healing_steps + record.exchange_steps for record in self.records)

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
            self._watched = mean_loss(self.module.model, self._inputs.held_out)
            self.planner.learn(Outcome(cycle=cycle, loss=self._watched, steps=record.healing_steps))
        self._tracker.advance(cuts=cycle, steps=self._steps_taken())
        self._save()

    def _begin(self, cycle: int) -> tuple[CycleRecord, Plan]:
        """Look, plan and cut; the record of the cycle so far."""
        if not (self._spec.grow or self._spec.controller):
            plan = self.planner.scheduled(self.records)
            return self._cut(cycle, plan), plan
        with self._tracker.phase(Phase.MEASURING, cycle=cycle):
            signals = signals_of(self.module, self._inputs.calibration)
            history = self._history(cycle, signals)
            plan = self.planner.plan(self.records, partial(self._measurements, signals))
            if plan.decision:
                self._tell(cycle, plan.decision)
        record = self._cut(cycle, plan)
        watched = mean_loss(self.module.model, self._inputs.held_out) if plan.decision else None
        return record.model_copy(
            update={
                "signals": signals,
                "states": states_of(history),
                "decision": plan.decision,
                "watched_cut_loss": watched,
            }
        ), plan

    def _history(self, cycle: int, signals: Signals) -> History:
        """The states of the attention groups up to this cycle's measurement; says what changed."""
        measured = {record.cycle: record.signals for record in self.records} | {cycle: signals}
        history = history_of(measured, self.module.dense_counts["attention"])
        if changes := changes_in(history, cycle):
            self._tracker.message(f"Cycle {cycle}: {changes}")
        return history

    def _tell(self, cycle: int, decision: DecisionRecord) -> None:
        for name, value in series(decision).items():
            self._tracker.metric(name, value)
        self._tracker.message(f"Cycle {cycle}: {decision.reason}")

    def _measurements(self, signals: Signals, steps_left: int, progress: float, planned: float) -> Measurements:
        if self._watched_dense is None:
            self._watched_dense = mean_loss(self._inputs.dense, self._inputs.held_out)
        if self._watched is None:
            self._watched = mean_loss(self.module.model, self._inputs.held_out) if self.records else self._watched_dense
        return measurements(
            self.module,
            signals,
            self.records,
            prune=self._spec.prune,
            dense_loss=self._watched_dense,
            loss=self._watched,
            cycles=self._spec.prune.cycles,
            steps_per_cycle=self._steps,
            steps_left=steps_left,
            progress=progress,
            planned=planned,
        )

    def _cut(self, cycle: int, plan: Plan) -> CycleRecord:
        with self._tracker.phase(Phase.PRUNING, cycle=cycle):
            calibration = self._calibration()
            merging = consolidate(self.module, calibration, plan.prune, before=plan.before, progress=plan.progress)
            self._tell_merges(cycle, merging.merged)
            selection = self.module.select(calibration, plan.prune, before=merging.before, progress=merging.progress)
            cut, compensation = self.module.cut(calibration, selection.cut, compensation=plan.prune.compensation)
            removed = union(merging.removed, cut)
            loss = self._held_out_loss("pruned")
        self._tracker.message(f"Cycle {cycle}: {self._summary(removed)}; held-out loss {loss:.4f}.")
        return CycleRecord(
            cycle=cycle,
            sparsity=self.module.sparsity,
            cost=self._cost(selection),
            removed=removed,
            evaluations=selection.evaluations,
            loss_before_healing=loss,
            loss=loss,
            compensation=[*merging.compensation, *compensation],
            merged=list(merging.merged),
        )

    def _tell_merges(self, cycle: int, merged: Sequence[MergeRecord]) -> None:
        for sentence in sentences(merged):
            self._tracker.message(f"Cycle {cycle}: {sentence}")

    def _calibration(self) -> Calibration:
        seed = self._spec.seed + len(self.records)
        return self.module.calibration(self._inputs.calibration, self._spec.prune, seed=seed)

    def _cost(self, selection: Selection) -> CostRecord:
        measured = cost_for(self._spec.prune, self._calibration()).total
        kind = self._spec.prune.target.kind
        return CostRecord(kind=kind, goal=selection.goal, predicted=selection.predicted, measured=measured)

    def _summary(self, removed: Mapping[str, Mapping[int, Sequence[int]]]) -> str:
        """What a cycle cut, and what is left, of the units that the spec prunes."""
        parts = []
        for unit in units_of(self._spec.prune.units):
            cut = sum(map(len, removed.get(unit, {}).values()))
            left, dense = sum(map(len, self.module.kept[unit])), sum(self.module.dense_counts[unit])
            parts.append(f"cut {cut} {unit} group(s), {left} of {dense} left")
        return ", ".join(parts)

    def _went_too_far(self) -> bool:
        """Whether the last cycle raised the held-out loss beyond the spec's limit; says so."""
        limit = self._spec.prune.max_loss_increase
        if limit is None or not self.records:
            return False
        increase = self._last_loss() - self._dense_loss()
        if increase <= limit:
            return False
        self._tracker.message(
            f"Stopped after cycle {len(self.records)} of {self._spec.prune.cycles}: the held-out loss is "
            f"{increase:.4f} above the dense model's, more than prune.max_loss_increase {limit:g}.",
            level="warning",
        )
        return True

    def _last_loss(self) -> float:
        """The held-out loss that the last cycle ended with: behind its exchange, where it had one."""
        record = self.records[-1]
        grown = [point.value for point in self._tracker.series.get("grown_loss", ()) if point.cycle == record.cycle]
        return grown[-1] if grown else record.loss

    def _dense_loss(self) -> float:
        if not self._tracker.series["dense_loss"]:
            self._tracker.metric("dense_loss", mean_loss(self._inputs.dense, self._inputs.evaluation))
        return self._tracker.series["dense_loss"][-1].value

    def _heal(self, record: CycleRecord, heal: Heal) -> CycleRecord:
        """The record with what came of its healing."""
        cycle = record.cycle
        tuner = FineTuner(heal=heal, dense=self._inputs.dense)
        observer = HealingObserver(self._tracker, cycle=cycle, steps_before=self._steps_taken())
        keeper = PeriodicKeeper(partial(self._save_healing, record), interval_s=self._attempt.save_interval_s)
        with self._tracker.phase(Phase.HEALING, cycle=cycle):
            healed = tuner.fine_tune(
                self.module.model,
                self._inputs.training,
                seed=self._spec.seed + cycle,
                held_out=self._inputs.held_out,
                observer=observer,
                keeper=keeper,
                resume=self._training,
            )
            self._healing, self._training = None, None
            loss = self._held_out_loss("healed")
        slope = healing_slope(self._tracker.series["healing_loss"], steps=healed.steps)
        return record.model_copy(update={"loss": loss, "healing_steps": healed.steps, "healing_slope": slope})

    def _grow(self, record: CycleRecord, plan: Plan, how: Grow, heal: Heal) -> CycleRecord:
        """The record with what was exchanged in the cycle, which is behind its healing."""
        cycle, steps_before = record.cycle, self._steps_taken() + record.healing_steps
        if self._healing is None:
            self._save(Healing(record=record, step=record.healing_steps, done=True))
        exchange = Exchange(
            inputs=self._inputs,
            prune=plan.prune,
            how=how,
            heal=heal,
            seed=self._spec.seed + cycle,
            progress=plan.progress,
            layers=plan.grow_layers,
        )
        with self._tracker.phase(Phase.GROWING, cycle=cycle):
            tried = exchange.attempt(
                self.module,
                lambda taken: HealingObserver(self._tracker, cycle=cycle, steps_before=steps_before + taken),
            )
            if tried is None:
                self._tracker.message(f"Cycle {cycle}: there is nothing that could be exchanged.")
                return record
            self.module, growth = tried
            self._held_out_loss("grown")
        self._tell_merges(cycle, growth.merged)
        self._tracker.message(f"Cycle {cycle}: grew {_numbers(growth.grown)}. {growth.reason}")
        return record.model_copy(update={"growth": growth, "exchange_steps": how.steps})

    def _held_out_loss(self, stage: str) -> float:
        """Of the model as it is; recorded under the stage's name with the divergence from the dense one."""
        found = compare(self._inputs.dense, self.module.model, self._inputs.evaluation)
        self._tracker.metric(f"{stage}_loss", found.pruned_loss)
        self._tracker.metric(f"{stage}_kl", found.kl_to_dense)
        return found.pruned_loss

    def _save_healing(self, record: CycleRecord, step: int, write_training: Callable[[Path], None]) -> None:
        self._save(Healing(record=record, step=step), write_training)

    def _save(self, healing: Healing | None = None, write_training: Callable[[Path], None] | None = None) -> None:
        cycle, step = len(self.records), healing.step if healing else None
        if step is not None and cycle == 0:
            step += self._steps_before  # the states of the warm-up come before those of the first healing
        state = CycleState(
            spec_sha256=spec_digest(self._spec),
            cycle=cycle,
            kept=self.module.kept,
            records=self.records,
            warm_up=self.warm_up,
            commits=dict(self._attempt.commits),
            healing=healing,
            controller=self.planner.state(),
            timings_s=dict(self._tracker.timings_s),
        )
        self._attempt.keep(
            state,
            step=step,
            write_checkpoint=partial(write_unfinished, self._inputs, self.module),
            write_training=write_training,
        )


def _numbers(groups: Mapping[str, Mapping[int, Sequence[int]]]) -> str:
    """How many groups of each unit."""
    return ", ".join(f"{sum(map(len, layers.values()))} {unit} group(s)" for unit, layers in groups.items())
