"""What a run looks at to decide about its cycles: signals of the heads, losses on text that is kept out of healing."""

from collections.abc import Sequence

import torch

from sentinel.controller.measurements import Measurements
from sentinel.models.adaptive.signals import measure_signals
from sentinel.prune_spec import Prune
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import CycleRecord, Signals
from sentinel.utils.series import Point

# Attention maps of all layers are held at a time; so many tokens of a window are enough to tell heads apart.
MOST_TOKENS = 512


def signals_of(module: PruningModule, windows: torch.Tensor) -> Signals:
    """What every attention group of the model does, by its index in the dense model; it has no gates to tell of."""
    measured = measure_signals(module.model, module.family, windows[:, :MOST_TOKENS]).by_name()
    kept = module.kept["attention"]
    return {
        name: {layer: {kept[layer][at]: value for at, value in groups.items()} for layer, groups in layers.items()}
        for name, layers in measured.items()
        if name != "gate"
    }


def measurements(
    module: PruningModule,
    signals: Signals,
    records: Sequence[CycleRecord],
    *,
    prune: Prune,
    dense_loss: float,
    loss: float,
    cycles: int,
    steps_per_cycle: int,
    steps_left: int,
    progress: float,
    planned: float,
) -> Measurements:
    """What a controller is told before the cycle behind `records`; losses are those of text kept out of healing."""
    last = records[-1] if records else None
    return Measurements(
        cycle=len(records) + 1,
        cycles=cycles,
        progress=progress,
        steps_left=steps_left,
        steps_per_cycle=steps_per_cycle,
        planned=planned,
        dense_loss=dense_loss,
        loss=loss,
        cut_loss=last.watched_cut_loss if last else None,
        healing_slope=last.healing_slope if last else None,
        minimum_per_layer=prune.minimum_per_layer,
        protected_layers=prune.protected_layers,
        utilisation=signals["utilisation"],
        entropy=signals["entropy"],
        removed={
            layer: dense - sum(group < dense for group in groups)
            for layer, (dense, groups) in enumerate(
                zip(module.dense_counts["attention"], module.kept["attention"], strict=True)
            )
        },
    )


def healing_slope(losses: Sequence[Point], *, steps: int) -> float | None:
    """Nats per token that each step of the last quarter won over the quarter before it; None of less than 4 steps.

    Args:
        losses: The training loss of every step that was learnt from, the last ones of one healing.
        steps: How many that healing took.
    """
    quarter = steps // 4
    if quarter == 0 or len(losses) < 2 * quarter:
        return None
    values = [point.value for point in losses[-2 * quarter :]]
    earlier, later = values[:quarter], values[quarter:]
    return (sum(earlier) - sum(later)) / quarter / quarter
