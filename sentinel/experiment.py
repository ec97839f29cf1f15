"""The main job: measure, then prune, compensate and heal per cycle, measure, export.

Reads a spec, writes an output folder, tells a reporter. Every cycle ends with a state folder
from which a killed run goes on to the same weights. Knows no database and no HTTP.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sentinel.events import CheckpointSaved, Finished, Phase, Reporter
from sentinel.inputs import Inputs, check_inputs, load_inputs
from sentinel.models.evaluation import (
    PROTOCOL,
    compare,
    count_parameters,
    interleaved_latency,
    kv_bytes_per_token,
    mean_loss,
    perplexity,
)
from sentinel.models.loaders.tokenizer import generate
from sentinel.models.optimized.export import export
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.schedule import sparsity_at
from sentinel.pruning.visualization.plots import plot_kept_groups, plot_losses
from sentinel.result import (
    CycleRecord,
    GroupCounts,
    LayerCompensation,
    Measurement,
    Protocol,
    PrunedMeasurement,
    Result,
)
from sentinel.spec import Spec
from sentinel.utils.checkpoints.cycle_state import (
    METRICS_FILE,
    CycleState,
    load_state,
    load_weights,
    save_state,
    spec_digest,
    state_folder,
)
from sentinel.utils.metrics_log import MetricsLog
from sentinel.utils.progress_tracker import ProgressTracker

RESULT_FILE = "result.json"
STATE_FOLDER = "state"
# Length of the sample continuations, in tokens.
SAMPLE_TOKENS = 40


def run(
    spec: Spec,
    *,
    output: Path,
    reporter: Reporter,
    resume: Path | None = None,
    allowed_roots: Sequence[Path] | None = None,
) -> Result:
    """Run one experiment.

    Writes `checkpoint/`, `result.json`, `metrics.jsonl` and `plots/` under `output`, and after each
    cycle a folder under `output/state`.

    Args:
        spec: What to run.
        output: Folder to write to; made if absent.
        reporter: Hears every event; the last one is `Finished`.
        resume: A state folder of an earlier run of the same spec.
        allowed_roots: Folders that `source: path` may read from; None allows any.

    Raises:
        SentinelError: One of its subclasses, for everything that can be foreseen.
    """
    output.mkdir(parents=True, exist_ok=True)
    with MetricsLog(output / METRICS_FILE, reporter, earlier=resume / METRICS_FILE if resume else None) as log:
        tracker = ProgressTracker(log)
        torch.manual_seed(spec.seed)
        with tracker.phase(Phase.LOADING):
            inputs = load_inputs(spec, allowed_roots=allowed_roots)
            check_inputs(spec, inputs)
        result = _Run(spec, inputs, output=output, reporter=log, tracker=tracker, resume=resume).result()
        log.emit(Finished(result=result.model_dump(mode="json")))
        return result


class _Run:
    """One run's moving parts."""

    def __init__(
        self,
        spec: Spec,
        inputs: Inputs,
        *,
        output: Path,
        reporter: Reporter,
        tracker: ProgressTracker,
        resume: Path | None,
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.output = output
        self.reporter = reporter
        self.tracker = tracker
        self.steps = steps_per_cycle(spec.heal, inputs.training) if spec.heal else 0
        tracker.plan(cycles=spec.prune.cycles, steps_per_cycle=self.steps)
        state = load_state(resume, spec) if resume else None
        self.records = list(state.records) if state else []
        self.module = PruningModule(copy.deepcopy(inputs.dense), inputs.family, kept=state.kept if state else None)
        if resume and state:
            load_weights(resume, self.module.model)
            tracker.add_timings(state.timings_s)
            tracker.advance(cuts=state.cycle, steps=state.cycle * self.steps)
            tracker.message(f"Resumed after cycle {state.cycle} of {spec.prune.cycles}.")

    def result(self) -> Result:
        """Run the cycles that are left, then measure and export."""
        with self.tracker.phase(Phase.MEASURING):
            # First, because a prompt that is too long must not fail the run at its end.
            dense_samples = self._samples(self.inputs.dense)
            if not self.records:
                self.tracker.metric("dense_loss", mean_loss(self.inputs.dense, self.inputs.evaluation))
        for cycle in range(len(self.records) + 1, self.spec.prune.cycles + 1):
            self._cycle(cycle)
        with self.tracker.phase(Phase.EVALUATING):
            dense, pruned = self._measure(dense_samples)
        with self.tracker.phase(Phase.EXPORTING):
            form = self._export()
        result = self._result(dense, pruned, form)
        (self.output / RESULT_FILE).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        self._plot(result)
        return result

    def _cycle(self, cycle: int) -> None:
        target = sparsity_at(
            cycle,
            cycles=self.spec.prune.cycles,
            target=self.spec.prune.target.sparsity,
            schedule=self.spec.prune.schedule,
        )
        with self.tracker.phase(Phase.PRUNING, cycle=cycle):
            removed, compensation = self._prune(target)
            before = self._held_out_loss("pruned_loss")
        self.tracker.message(
            f"Cycle {cycle}: cut {sum(map(len, removed.values()))} group(s), {sum(self.module.counts)} of "
            f"{sum(self.module.dense_counts)} left; held-out loss {before:.4f}."
        )
        after = self._heal(cycle) if self.spec.heal else before
        self.records.append(
            CycleRecord(
                cycle=cycle,
                target_sparsity=target,
                sparsity=self.module.sparsity,
                removed={"attention": removed},
                loss_before_healing=before,
                loss=after,
                compensation=compensation,
            )
        )
        self._save(cycle)

    def _prune(self, target: float) -> tuple[dict[int, list[int]], list[LayerCompensation]]:
        prune = self.spec.prune
        selection = self.module.select(
            self.inputs.calibration,
            strategy=prune.strategy,
            sparsity=target,
            allocation=prune.allocation,
            minimum_per_layer=prune.minimum_per_layer,
            seed=self.spec.seed + len(self.records),
        )
        if prune.compensation == "least_squares" and selection:
            return self.module.cut_and_compensate(selection, self.inputs.calibration)
        return self.module.cut(selection), []

    def _heal(self, cycle: int) -> float:
        assert self.spec.heal is not None  # noqa: S101 - the caller checked; tells the type checker
        tuner = FineTuner(heal=self.spec.heal, dense=self.inputs.dense)
        with self.tracker.phase(Phase.HEALING, cycle=cycle):
            tuner.fine_tune(
                self.module.model, self.inputs.training, seed=self.spec.seed + cycle, on_step=self._observe_step(cycle)
            )
            return self._held_out_loss("healed_loss")

    def _observe_step(self, cycle: int) -> Callable[[int, float], None]:
        def observe(step: int, loss: float) -> None:
            self.tracker.advance(cuts=cycle, steps=(cycle - 1) * self.steps + step)
            self.tracker.metric("healing_loss", loss)

        return observe

    def _held_out_loss(self, name: str) -> float:
        loss = mean_loss(self.module.model, self.inputs.evaluation)
        self.tracker.metric(name, loss)
        return loss

    def _save(self, cycle: int) -> None:
        self.tracker.advance(cuts=cycle, steps=cycle * self.steps)
        folder = state_folder(self.output / STATE_FOLDER, cycle)
        state = CycleState(
            spec_sha256=spec_digest(self.spec),
            cycle=cycle,
            kept=self.module.kept,
            records=self.records,
            timings_s=dict(self.tracker.timings_s),
        )
        save_state(folder, state, self.module.model, self.output / METRICS_FILE)
        self.reporter.emit(CheckpointSaved(cycle=cycle, directory=str(folder)))

    def _measure(self, dense_samples: list[str]) -> tuple[Measurement, PrunedMeasurement]:
        dense, pruned = self.inputs.dense, self.module.model
        losses = compare(dense, pruned, self.inputs.evaluation)
        latencies = interleaved_latency([dense, pruned], self.inputs.evaluation[0])
        self.tracker.metric("kl_to_dense", losses.kl_to_dense)
        return (
            self._measurement(dense, losses.dense_loss, latencies[0], dense_samples),
            PrunedMeasurement(
                **self._measurement(pruned, losses.pruned_loss, latencies[1], self._samples(pruned)).model_dump(),
                kl_to_dense=losses.kl_to_dense,
            ),
        )

    def _measurement(self, model: PreTrainedModel, loss: float, latency_ms: float, samples: list[str]) -> Measurement:
        return Measurement(
            loss=loss,
            perplexity=perplexity(loss),
            parameters=count_parameters(model),
            groups=GroupCounts(attention=sum(self.inputs.family.counts(model))),
            kv_bytes_per_token=kv_bytes_per_token(model, self.inputs.family),
            latency_ms=latency_ms,
            samples=samples,
        )

    def _samples(self, model: PreTrainedModel) -> list[str]:
        prompts = self.spec.evaluate.prompts
        return generate(model, self.inputs.tokenizer, prompts, max_new_tokens=SAMPLE_TOKENS) if prompts else []

    def _export(self) -> str:
        return export(
            self.module.model,
            self.inputs.tokenizer,
            family=self.inputs.family,
            form=self.spec.export.form,
            dtype=self.spec.export.dtype or self.spec.model.dtype,
            directory=self.output / "checkpoint",
            kept=self.module.kept,
        )

    def _result(self, dense: Measurement, pruned: PrunedMeasurement, form: str) -> Result:
        windows, length = self.inputs.evaluation.shape
        return Result(
            dense=dense,
            pruned=pruned,
            cycles=self.records,
            removed={"attention": self.module.removed},
            export_form=form,
            protocol=Protocol(
                text=self.inputs.text,
                sequence_length=length,
                windows=windows,
                tokens=windows * (length - 1),
                description=PROTOCOL,
            ),
            timings_s={phase: round(seconds, 3) for phase, seconds in self.tracker.timings_s.items()},
            checkpoint=str(self.output / "checkpoint"),
        )

    def _plot(self, result: Result) -> None:
        plots = self.output / "plots"
        plots.mkdir(exist_ok=True)
        plot_kept_groups(self.module.kept, self.module.dense_counts, plots / "groups.png")
        plot_losses(self.output / METRICS_FILE, result, plots / "losses.png")
