"""Layers × groups by what became of them: a square each, or a bar a layer where a layer has too many."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from sentinel.manifest import Unit
from sentinel.pruning.visualization.group_states import GROUP_NAMES, GroupState, State
from sentinel.pruning.visualization.style import (
    BLUE,
    GREEN,
    PALE,
    PANEL_WIDTH,
    PURPLE,
    VERMILLION,
    cell_size,
    layered,
    values,
)

# Wider sites, as those of neurons, are drawn as one bar per layer.
MOST_SQUARES = 64
COLOURS = {
    State.KEPT: BLUE,
    State.GROWN: GREEN,
    State.CUT: VERMILLION,
    State.TRIED: PURPLE,
    State.GONE: PALE,
}
SIGNS = {State.GROWN: "+", State.CUT: "×", State.TRIED: "±"}


class Size(NamedTuple):
    """Of a map, in pixels."""

    width: int
    height: int


def group_map(states: Sequence[GroupState], *, unit: Unit) -> alt.LayerChart:
    """Of all cycles, one on top of the other until they are put into panels.

    Args:
        states: Of one unit.
        unit: Which.
    """
    return _squares(states, unit) if _widest(states) <= MOST_SQUARES else _bars(states, unit)


def size_of(states: Sequence[GroupState]) -> Size:
    """What a map of these needs."""
    layers, widest = 1 + max(s.layer for s in states), _widest(states)
    if widest > MOST_SQUARES:
        return Size(PANEL_WIDTH, cell_size(layers) * layers)
    cell = cell_size(layers, widest)
    return Size(cell * widest, cell * layers)


def _widest(states: Sequence[GroupState]) -> int:
    return 1 + max(s.group for s in states)


def _squares(states: Sequence[GroupState], unit: Unit) -> alt.LayerChart:
    rows: list[dict[str, object]] = [{**s._asdict(), "sign": SIGNS.get(s.state, "")} for s in states]
    base = alt.Chart().encode(
        x=alt.X("group:O", title=GROUP_NAMES[unit], axis=alt.Axis(labelAngle=0)),
        y=alt.Y("layer:O", title="layer"),
        tooltip=["cycle:O", "layer:O", "group:O", "state:N"],
    )
    squares = base.mark_rect(stroke="white", strokeWidth=2).encode(color=_colour(states))
    signs = base.mark_text(color="white", fontSize=14, fontWeight="bold").encode(text="sign:N")
    return layered(squares, signs, data=values(rows))


def _bars(states: Sequence[GroupState], unit: Unit) -> alt.LayerChart:
    order = list(State)
    counts = Counter((s.cycle, s.layer, s.state) for s in states)
    rows: list[dict[str, object]] = [
        {"cycle": cycle, "layer": layer, "state": state, "groups": count, "order": order.index(state)}
        for (cycle, layer, state), count in counts.items()
    ]
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X("groups:Q", title=f"{GROUP_NAMES[unit]}s"),
            y=alt.Y("layer:O", title="layer"),
            color=_colour(states),
            order="order:O",
            tooltip=["cycle:O", "layer:O", "state:N", "groups:Q"],
        )
    )
    return layered(bars, data=values(rows))


def _colour(states: Sequence[GroupState]) -> alt.Color:
    there = {s.state for s in states}
    shown = [state for state in State if state in there]
    scale = alt.Scale(domain=shown, range=[COLOURS[state] for state in shown])
    return alt.Color("state:N", scale=scale, title=None)
