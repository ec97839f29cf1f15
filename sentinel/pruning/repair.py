"""Cuts a model from its first layer to its last and repairs each behind the ones that are already cut."""

from collections.abc import Iterator

from sentinel.models.optimized.surgery import apply_removal
from sentinel.prune_spec import CompensationName
from sentinel.pruning.calibration import Calibration, LayerwisePass
from sentinel.pruning.compensation import (
    Cut,
    UncutLayer,
    cut_layer,
    fit_output,
    least_squares,
    repair_stream,
    run_uncut,
)
from sentinel.pruning.reconstruction import fit_layer, fit_unit
from sentinel.result import LayerCompensation


def cut_and_compensate(
    calibration: Calibration, cut: Cut, *, compensation: CompensationName | None
) -> list[LayerCompensation]:
    """Cut groups out of the calibration's model and repair what is left; one record per refitted projection.

    Args:
        calibration: The model, changed in place, and the windows it is repaired on.
        cut: Unit → layer → groups to remove, by their index in the layer as it is now.
        compensation: How; None cuts and changes nothing else.
    """
    if compensation is None:
        apply_removal(calibration.model, calibration.family, cut)
        return []
    if not layers_of(cut):
        return []
    walk = (
        _own_outputs(calibration, cut) if compensation == "least_squares" else _stream(calibration, cut, compensation)
    )
    return list(walk)


def repair_layer(
    calibration: Calibration,
    layer: int,
    cut: Cut,
    *,
    compensation: CompensationName | None,
    stream: LayerwisePass,
    uncut: UncutLayer,
) -> list[LayerCompensation]:
    """Cut one layer, repair it, and carry `stream`, which is what the layers before it make, through it."""
    records: list[LayerCompensation] = []
    if compensation is None:
        cut_layer(calibration, layer, cut)
    elif compensation == "least_squares":
        records = list(least_squares(calibration, layer, cut, stream))
    elif compensation == "residual_least_squares":
        records = list(repair_stream(calibration, layer, cut, stream, uncut, fit=fit_output))
    else:
        units = repair_stream(calibration, layer, cut, stream, uncut, fit=fit_unit)
        records = [*units, fit_layer(calibration, layer, stream, uncut)]
    stream.run(layer)
    return records


def layers_of(cut: Cut) -> list[int]:
    """Layers that lose something, ascending."""
    return sorted({layer for layers in cut.values() for layer, groups in layers.items() if groups})


def _own_outputs(calibration: Calibration, cut: Cut) -> Iterator[LayerCompensation]:
    """Layers behind the last cut need no look."""
    stream = LayerwisePass(calibration)
    last = layers_of(cut)[-1]
    for layer in range(last + 1):
        yield from least_squares(calibration, layer, cut, stream)
        if layer < last:
            stream.run(layer)


def _stream(calibration: Calibration, cut: Cut, compensation: CompensationName) -> Iterator[LayerCompensation]:
    """Nothing before the first cut needs a repair; there the two streams are one."""
    uncut, stream = LayerwisePass(calibration), LayerwisePass(calibration)
    first = layers_of(cut)[0]
    for layer in range(len(calibration.family.layers(calibration.model))):
        now = run_uncut(calibration, layer, uncut)
        if layer < first:
            stream.hidden = uncut.hidden
            continue
        yield from repair_layer(calibration, layer, cut, compensation=compensation, stream=stream, uncut=now)
