"""How every gate went over the cycles."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from sentinel.pruning.visualization.style import BLUE, KINDS, panels, styled, values
from sentinel.result import CycleRecord

WIDTH, HEIGHT = 200, 130


def gate_paths(cycles: Sequence[CycleRecord]) -> alt.FacetChart:
    """A panel a layer, a line a group; they have colours of their own where these suffice.

    Args:
        cycles: Of which at least two have measured gates.
    """
    rows = gate_rows(cycles)
    groups = sorted({row.group for row in rows})
    base = alt.Chart(values([row._asdict() for row in rows])).encode(
        x=alt.X("cycle:O", title="cycle", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title="gate", scale=alt.Scale(domainMin=0, nice=True)),
        tooltip=["cycle:O", "layer:O", "group:O", alt.Tooltip("value:Q", title="gate")],
    )
    if len(groups) <= len(KINDS):
        colour = alt.Color("group:N", title="group", scale=alt.Scale(domain=groups, range=KINDS[: len(groups)]))
        shape = alt.Shape("group:N", title="group", scale=alt.Scale(domain=groups))
        lines = base.mark_line(point=alt.OverlayMarkDef(filled=True, size=40)).encode(color=colour, shape=shape)
    else:
        lines = base.mark_line(point=alt.OverlayMarkDef(color=BLUE), color=BLUE, opacity=0.5).encode(detail="group:N")
    return styled(
        panels(lines, "layer", width=WIDTH, height=HEIGHT),
        title="Gate of every attention group, before each cycle's cut",
        subtitle="1: open, 0: closed",
    )


class GateRow(NamedTuple):
    """One gate in one cycle; None where its group was not there, which breaks its line."""

    cycle: int
    layer: int
    group: int
    value: float | None


def gate_rows(cycles: Sequence[CycleRecord]) -> list[GateRow]:
    """Every gate that a cycle has measured, in all cycles that measured any."""
    measured = {record.cycle: record.signals["gate"] for record in cycles if "gate" in record.signals}
    gates = {(layer, group) for layers in measured.values() for layer, groups in layers.items() for group in groups}
    return [
        GateRow(cycle, layer, group, layers.get(layer, {}).get(group))
        for cycle, layers in measured.items()
        for layer, group in sorted(gates)
    ]
