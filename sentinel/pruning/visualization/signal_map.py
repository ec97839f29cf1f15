"""What was measured of every attention group before each cycle's cut: importance, entropy and their like."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from sentinel.pruning.visualization.style import (
    AMOUNTS,
    CELL,
    PALE,
    VERMILLION,
    cell_size,
    layered,
    panels,
    styled,
    values,
)
from sentinel.result import CycleRecord

# From the largest of values above 0 to the smallest; beyond it most of a linear scale would be one colour.
WIDE_RANGE = 100.0
LEGEND = alt.Legend(gradientLength=130, format=".2~g")


class _Signal(NamedTuple):
    """What a signal is called, in what it is counted, and whether its values may span decades."""

    name: str
    unit: str
    decades: bool = False


SIGNALS = {
    "importance": _Signal("Importance", "importance, |∂loss / ∂gate| (nats per token)", decades=True),
    "entropy": _Signal("Attention entropy", "entropy of attention (nats)"),
    "utilisation": _Signal("Utilisation", "share of the layer's output energy"),
    "gradient_norm": _Signal("Gradient norm", "gradient norm", decades=True),
    "gate": _Signal("Gate", "gate"),
}


def signal_map(cycles: Sequence[CycleRecord], dense_counts: Sequence[int], *, signal: str) -> alt.FacetChart:
    """Layers × attention groups, a panel a cycle.

    Args:
        cycles: Of which at least one has measured the signal.
        dense_counts: Per layer, how many attention groups the dense model has.
        signal: Its name in `CycleRecord.signals`.
    """
    rows = signal_rows(cycles, dense_counts, signal=signal)
    layers, widest = len(dense_counts), 1 + max(row.group for row in rows)
    size = cell_size(layers, widest)
    name, unit, decades = SIGNALS.get(signal, _Signal(signal.replace("_", " ").capitalize(), signal.replace("_", " ")))
    base = alt.Chart().encode(
        x=alt.X("group:O", title="attention group", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("layer:O", title="layer"),
        tooltip=["cycle:O", "layer:O", "group:O", alt.Tooltip("value:Q", title=unit), "cut:N"],
    )
    measured = [row.value for row in rows if row.value is not None]
    large = size == CELL
    there = base.transform_filter("isValid(datum.value)")
    squares = base.mark_rect(stroke="white", strokeWidth=2 if large else 1)
    outlines = base.mark_point(
        # Inside its square, so that neighbours do not hide it.
        shape="square",
        size=(size - (5 if large else 3)) ** 2,
        strokeWidth=2.5 if large else 1.5,
        opacity=1,
        color=VERMILLION,
    ).transform_filter("datum.cut")
    amount = alt.Color("value:Q", title=unit, scale=_scale(measured, decades=decades), legend=LEGEND)
    layers_shown = (
        squares.encode(color=alt.value(PALE)),
        there.mark_rect(stroke="white", strokeWidth=2 if large else 1).encode(color=amount),
        outlines,
    )
    panel = layered(*layers_shown, data=values([row._asdict() for row in rows]))
    return styled(
        panels(panel, "cycle", width=size * widest, height=size * layers),
        title=f"{name} of every attention group, before each cycle's cut",
        subtitle="outlined: cut in that cycle; grey: not there any more",
    )


class SignalRow(NamedTuple):
    """One group before one cycle's cut; a value of None says that it was not there to be measured."""

    cycle: int
    layer: int
    group: int
    value: float | None
    cut: bool


def signal_rows(cycles: Sequence[CycleRecord], dense_counts: Sequence[int], *, signal: str) -> list[SignalRow]:
    """Every group of the dense model, and those that were grown beside them, in the cycles that measured the signal."""
    return [
        SignalRow(
            record.cycle,
            layer,
            group,
            found.get(group),
            cut=group in record.removed.get("attention", {}).get(layer, ()),
        )
        for record in cycles
        if signal in record.signals
        for layer, count in enumerate(dense_counts)
        for found in [record.signals[signal].get(layer, {})]
        for group in sorted({*range(count), *found})
    ]


def measured_signals(cycles: Sequence[CycleRecord]) -> list[str]:
    """Those of which there is a value, in the order of their first."""
    return list(
        dict.fromkeys(name for record in cycles for name, layers in record.signals.items() if any(layers.values()))
    )


def _scale(measured: Sequence[float], *, decades: bool) -> alt.Scale:
    lowest, highest = min(measured), max(measured)
    return alt.Scale(scheme=AMOUNTS, type="log" if decades and 0 < lowest < highest / WIDE_RANGE else "linear")
