"""What state every attention group was in before each cycle's cut."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import altair as alt

from sentinel.pruning.visualization.style import (
    BLUE,
    GREY,
    PALE,
    PURPLE,
    VERMILLION,
    cell_size,
    layered,
    panels,
    styled,
    values,
)
from sentinel.result import CycleRecord

REMOVED = "withdrawn: cut before"
# In the order in which legends name them.
COLOURS = {"active": BLUE, "overloaded": VERMILLION, "misaligned": PURPLE, "withdrawn": GREY, REMOVED: PALE}
SIGNS = {"overloaded": "+", "misaligned": "×", "withdrawn": "−"}


def state_map(cycles: Sequence[CycleRecord]) -> alt.FacetChart:
    """Layers × attention groups, a panel a cycle.

    Args:
        cycles: Of which at least one has recorded states.
    """
    rows = state_rows(cycles)
    layers, widest = 1 + max(row.layer for row in rows), 1 + max(row.group for row in rows)
    size = cell_size(layers, widest)
    base = alt.Chart().encode(
        x=alt.X("group:O", title="attention group", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("layer:O", title="layer"),
        tooltip=["cycle:O", "layer:O", "group:O", "state:N"],
    )
    there = {row.state for row in rows}
    shown = [state for state in COLOURS if state in there]
    scale = alt.Scale(domain=shown, range=[COLOURS[state] for state in shown])
    squares = base.mark_rect(stroke="white", strokeWidth=1).encode(color=alt.Color("state:N", scale=scale, title=None))
    signs = base.mark_text(color="white", fontSize=size * 0.7, fontWeight="bold").encode(text="sign:N")
    panel = layered(squares, signs, data=values([row._asdict() for row in rows]))
    return styled(
        panels(panel, "cycle", width=size * widest, height=size * layers),
        title="State of every attention group, before each cycle's cut",
        subtitle=", ".join(f"{sign} {state}" for state, sign in SIGNS.items() if state in there),
    )


class StateRow(NamedTuple):
    """One group before one cycle's cut."""

    cycle: int
    layer: int
    group: int
    state: str
    sign: str


def state_rows(cycles: Iterable[CycleRecord]) -> list[StateRow]:
    """Every group that a record names; those that were not measured had been cut before."""
    rows = []
    for record in cycles:
        for layer, states in record.states.items():
            measured = {group for of in record.signals.values() for group in of.get(layer, ())}
            for group, state in enumerate(states):
                name = state if group in measured else REMOVED
                rows.append(StateRow(record.cycle, layer, group, name, SIGNS.get(name, "")))
    return rows
