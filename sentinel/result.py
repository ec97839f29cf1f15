"""The outcome of an experiment, as it is written to `result.json` and shown by the service."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sentinel.stress_result import StressResult

RESULT_FILE = "result.json"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may have measured more


class GroupCounts(_Value):
    """How many groups the model has, per unit."""

    attention: int
    mlp: int


class Measurement(_Value):
    """One model under the evaluation protocol.

    Attributes:
        loss: Nats per token on the evaluation text.
        perplexity: exp(loss).
        parameters: Parameters counted after physical removal, tied ones once.
        groups: Groups left, per unit.
        kv_bytes_per_token: Bytes of key-value cache that one token takes, in the model's dtype.
        latency_ms: Median milliseconds of a forward pass over one window, batch 1.
        samples: Greedy continuations of the spec's prompts.
    """

    loss: float
    perplexity: float
    parameters: int
    groups: GroupCounts
    kv_bytes_per_token: int
    latency_ms: float
    samples: list[str]


class PrunedMeasurement(Measurement):
    """The pruned model, and how far it is from the dense one on the same text.

    Attributes:
        kl_to_dense: KL(dense ‖ pruned), nats per token.
        agreement: Share of the predictions in which both models rank the same next token first.
    """

    kl_to_dense: float
    agreement: float


class TaskResult(_Value):
    """One metric of a task of lm_eval, of both models.

    Attributes:
        task: Name of the task or group.
        metric: lm_eval's name of it; `metric,filter` where it is taken behind a filter.
        documents: How many it was measured on.
        higher_is_better: None if the task does not say.
        dense: The dense model's score; None if it is not a finite number.
        pruned: The pruned model's.
        dense_stderr: Standard error over the documents; None where lm_eval knows none.
        pruned_stderr: The pruned model's.
    """

    task: str
    metric: str
    documents: int
    higher_is_better: bool | None
    dense: float | None
    pruned: float | None
    dense_stderr: float | None
    pruned_stderr: float | None

    def cells(self) -> tuple[str, str, str]:
        """For a table: dense and pruned, each with its standard error, and the difference."""
        change = "" if self.dense is None or self.pruned is None else f"{self.pruned - self.dense:+.4f}"
        return _with_error(self.dense, self.dense_stderr), _with_error(self.pruned, self.pruned_stderr), change


def _with_error(value: float | None, stderr: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


class LayerCompensation(_Value):
    """One repair: its error on the calibration text before and after.

    Attributes:
        unit: `attention` or `mlp`: the refit of that unit's output projection, its error relative to the energy of
            its target. `layer`: the fit of the whole layer behind it, relative to the energy of the layer's output;
            of the last layer KL(uncut ‖ cut), nats per token.
        layer: In which layer.
        error_before: After the cut, before the repair.
        error_after: After the repair; never more.
        ridge: λ as a share of the mean diagonal, chosen on held-out calibration windows; None of a whole layer.
    """

    unit: str
    layer: int
    error_before: float
    error_after: float
    ridge: float | None


class CostRecord(_Value):
    """What the model costs after a cycle's cut, in the unit of `prune.target`.

    Attributes:
        kind: Which target.
        goal: What the cycle had to reach.
        predicted: What the selection promised.
        measured: What the cut model costs.
    """

    kind: str
    goal: float
    predicted: float
    measured: float


class MergeRecord(_Value):
    """Two groups of a layer that did nearly the same and became one; named as in the dense model.

    Attributes:
        unit: `attention` or `mlp`.
        layer: In which layer.
        group: Which went.
        partner: Which took its part.
        cosine: Of their outputs on the calibration text; below 0 where one turned the other's sign.
    """

    unit: str
    layer: int
    group: int
    partner: int
    cosine: float


class GrowthRecord(_Value):
    """What a cycle grew and gave up for it, and whether that was worth it.

    Groups are named by their index in the dense model; those that it never had count on from its number.

    Attributes:
        strategy: Which chose them.
        grown: Unit → layer → groups that came in.
        removed: Unit → layer → groups, of any age, that went in exchange.
        gains: Unit → layer → group → what the strategy promised of every candidate; higher came first.
        accepted: Whether the exchange stands; if not, the run goes on with the copy.
        loss_before: Held-out loss before they came in, nats per token.
        loss_grown: With all of them, after half of the steps; None where it or what was learnt was not finite.
        loss_after: After the exchange and the other half, at the size that the model had before; None likewise.
        loss_without: Of a copy that learnt as long and exchanged nothing.
        reason: Why it does or does not, in a sentence.
        merged: Those of the removed that went as they were merged into others.
    """

    strategy: str
    grown: dict[str, dict[int, list[int]]]
    removed: dict[str, dict[int, list[int]]]
    gains: dict[str, dict[int, dict[int, float]]]
    accepted: bool
    loss_before: float
    loss_grown: float | None
    loss_after: float | None
    loss_without: float
    reason: str
    merged: list[MergeRecord] = []


class DecisionRecord(_Value):
    """What a controller decided for a cycle, and on what grounds.

    Attributes:
        action: `prune`, `hold`, `heal` or `grow`: what stands out in it.
        progress: Share of the way to the target that shall be done at the end of the cycle; what grows is exchanged
            and leaves it as it is.
        grow: Share of the dense model's groups that shall grow; 0 for none.
        steps: Healing steps of the cycle.
        protected_layers: Layers that lose nothing in this cycle, beside those that never do.
        grow_layers: Layers to grow in; none stands for any.
        measurements: Name → number it was decided on.
        reason: In a sentence, with the thresholds that were crossed.
    """

    action: Literal["prune", "hold", "heal", "grow"]
    progress: float
    grow: float
    steps: int
    protected_layers: list[int] = []
    grow_layers: list[int] = []
    measurements: dict[str, float]
    reason: str


# Name (`importance`, `entropy`, `utilisation`, `gradient_norm`, `gate`) → layer → attention group of the dense model.
Signals = dict[str, dict[int, dict[int, float]]]
# Of an attention group, told from its signals by thresholds.
State = Literal["active", "overloaded", "misaligned", "withdrawn"]


class CycleRecord(_Value):
    """What one cycle did.

    Attributes:
        sparsity: Unit → share of the dense model's groups that is gone after the cycle.
        cost: Predicted and measured, against the goal.
        removed: Unit → layer → groups of the dense model cut in this cycle.
        evaluations: Candidates that the search measured.
        healing_steps: Steps of its healing.
        exchange_steps: Steps of its growth.
        watched_cut_loss: Loss right after the cut on training text that is kept out of healing; None where nobody
            decides by it.
        healing_slope: Nats per token that a step of the last quarter of the healing won; None where it was too short.
        signals: What was measured of every attention group before the cut, where something is decided by it.
        states: Layer → what state each of its attention groups was in at that measurement, group 0 first; those that
            are not there any more are withdrawn.
        decision: What the controller decided; None without one.
        growth: What was grown; None where nothing was.
        merged: Those of the removed that went as they were merged into others.
    """

    cycle: int
    sparsity: dict[str, float]
    cost: CostRecord
    removed: dict[str, dict[int, list[int]]]
    evaluations: int
    loss_before_healing: float
    loss: float
    compensation: list[LayerCompensation]
    healing_steps: int = 0
    exchange_steps: int = 0
    watched_cut_loss: float | None = None
    healing_slope: float | None = None
    signals: Signals = {}
    states: dict[int, list[State]] = {}
    decision: DecisionRecord | None = None
    growth: GrowthRecord | None = None
    merged: list[MergeRecord] = []


class WarmUpRecord(_Value):
    """What the training before the first cut came to. The model that it made is what the rest calls dense.

    Attributes:
        steps: Optimiser steps.
        loaded_loss: Nats per token on the evaluation text, of the model as it was loaded.
        loss: The same behind the warm-up.
        reason: Why it ended, in a sentence.
    """

    steps: int
    loaded_loss: float
    loss: float
    reason: str


class Protocol(_Value):
    """How the losses were measured; two losses compare only if this is equal."""

    text: str
    sequence_length: int
    windows: int
    tokens: int
    description: str


class Memory(_Value):
    """What the run took of its device's memory at most.

    Attributes:
        estimated_bytes: Told before the model was loaded.
        peak_bytes: On a GPU what tensors took, without CUDA's own half a gigabyte or so; on a CPU the process's largest
            resident set, with the libraries. Of the last attempt, where there were several; None where the system does
            not say.
    """

    estimated_bytes: int
    peak_bytes: int | None

    def sentence(self) -> str:
        """Both, for people."""
        peak = "a peak that this system does not tell" if self.peak_bytes is None else f"{_megabytes(self.peak_bytes)}"
        return f"Memory: {peak}, estimated {_megabytes(self.estimated_bytes)}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


class Result(_Value):
    """Everything a run found out.

    Attributes:
        tasks: What `evaluate.tasks` and `evaluate.task_files` came to.
        removed: unit → layer → indices of the dense model's groups that are gone.
        export_form: `stock`, `remote_code` or `masked`.
        timings_s: Seconds per phase.
        memory: Estimated and measured.
        checkpoint: Folder that `from_pretrained` loads.
        stress: What `evaluate.stress` came to; None where the spec did not ask for it.
        warm_up: What `heal.before` came to; None where the spec did not ask for it.
    """

    dense: Measurement
    pruned: PrunedMeasurement
    tasks: list[TaskResult]
    cycles: list[CycleRecord]
    removed: dict[str, dict[int, list[int]]]
    export_form: str
    protocol: Protocol
    timings_s: dict[str, float]
    memory: Memory
    checkpoint: str
    stress: StressResult | None = None
    warm_up: WarmUpRecord | None = None
