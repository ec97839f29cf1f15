"""The main job: measure, then prune, compensate and heal per cycle, measure, export.

Reads a spec, writes an output folder, tells a reporter. Every cycle ends with a state folder from which a killed run
goes on to the same weights; a long healing leaves some on its way (`cycles`). Knows no database and no HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sentinel.attempt import Attempt
from sentinel.cycles import Cycles
from sentinel.events import Finished, Phase, Reporter
from sentinel.inputs import Inputs, check_inputs, load_inputs
from sentinel.locating import NOTHING, locate
from sentinel.manifest import Sources, model_folder, read_sources
from sentinel.measuring import continue_prompts, measure, task_results
from sentinel.memory_budget import MemoryBudget
from sentinel.model_limits import ModelLimits
from sentinel.models import document_isolation
from sentinel.models.evaluation import PROTOCOL
from sentinel.outputs import describe, write_checkpoint
from sentinel.pinning import pin, resolve_commits
from sentinel.result import (
    RESULT_FILE,
    Measurement,
    Memory,
    Protocol,
    PrunedMeasurement,
    Result,
    TaskResult,
)
from sentinel.spec import Spec
from sentinel.stress.protocol import stress
from sentinel.stress_result import StressResult
from sentinel.utils.checkpoints.cycle_state import (
    CHECKPOINT_FOLDER,
    METRICS_FILE,
    load_state,
)
from sentinel.utils.disk import telling_full_disk
from sentinel.utils.metrics_log import MetricsLog
from sentinel.utils.progress_tracker import ProgressTracker
from sentinel.utils.series import read_series
from sentinel.warming import warm_up


@telling_full_disk()
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
        if spec.heal and spec.heal.before and state is None:
            # A prompt that is too long must not fail the run behind its warm-up.
            continue_prompts(inputs.dense, inputs.tokenizer, spec.evaluate)
        attempt = Attempt(
            spec=spec,
            inputs=inputs,
            commits=commits,
            output=output,
            reporter=log,
            tracker=tracker,
            resume=resume,
            state=state,
            save_interval_s=save_interval_s,
        )
        warmed = warm_up(attempt)
        if state and state.warming_step is not None:
            attempt = replace(attempt, resume=None, state=None)  # it was left before its first cycle
        cycles = Cycles(attempt, model_folder=model_folder(locate(pinned, fetched).model), warm_up=warmed)
        sources = read_sources(pinned, fetched)
        run_ = _Run(spec, inputs, cycles, sources=sources, output=output, tracker=tracker)
        result = run_.result(budget)
        log.emit(Finished(result=result.model_dump(mode="json")))
        return result


class _Run:
    """What is done around the cycles."""

    def __init__(
        self, spec: Spec, inputs: Inputs, cycles: Cycles, *, sources: Sources, output: Path, tracker: ProgressTracker
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.cycles = cycles
        self.sources = sources
        self.output = output
        self.tracker = tracker

    def result(self, budget: MemoryBudget) -> Result:
        """Run the cycles that are left, then measure and export."""
        with self.tracker.phase(Phase.MEASURING):
            # First, because a prompt that is too long or a broken task must not fail the run at its end.
            dense_samples = continue_prompts(self.inputs.dense, self.inputs.tokenizer, self.spec.evaluate)
            dense_scores = self.inputs.tasks.scores(self.inputs.dense, self.inputs.tokenizer)
            self.cycles.measure_dense()
        self.cycles.run()
        module = self.cycles.module
        with self.tracker.phase(Phase.EVALUATING):
            dense, pruned = measure(self.inputs, module.model, self.spec.evaluate, dense_samples=dense_samples)
            self.tracker.metric("kl_to_dense", pruned.kl_to_dense)
            self.tracker.metric("agreement", pruned.agreement)
            tasks = task_results(dense_scores, self.inputs.tasks.scores(module.model, self.inputs.tokenizer))
            stressed = self._stressed()
        with self.tracker.phase(Phase.EXPORTING):
            form = write_checkpoint(self.spec, self.inputs, module, self.output / CHECKPOINT_FOLDER)
            self.cycles.planner.save(self.output / CHECKPOINT_FOLDER)
        memory = budget.taken()
        self.tracker.message(memory.sentence())
        result = self._result(dense, pruned, tasks, stressed, form=form, memory=memory)
        (self.output / RESULT_FILE).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        describe(
            self.spec,
            self.inputs,
            module,
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
        return stress(self.inputs, self.cycles.module.model, section, seed=self.spec.seed, tell=self.tracker.message)

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
            cycles=self.cycles.records,
            removed=self.cycles.module.removed,
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
            warm_up=self.cycles.warm_up,
        )
