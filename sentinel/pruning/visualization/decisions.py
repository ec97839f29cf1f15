"""What the controller decided in every cycle."""

from collections.abc import Mapping, Sequence

import altair as alt

from sentinel.pruning.visualization.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, layered, styled, values
from sentinel.result import CycleRecord

HEIGHT = 110
STEP = 56
ACTIONS: Mapping[str, tuple[str, str]] = {
    "prune": (VERMILLION, "triangle-down"),
    "hold": (ORANGE, "square"),
    "heal": (BLUE, "circle"),
    "grow": (GREEN, "triangle-up"),
}


def decisions(cycles: Sequence[CycleRecord]) -> alt.VConcatChart:
    """Progress and action, groups to grow, healing steps, one below the other; the reasons are shown on pointing.

    Args:
        cycles: Of which at least one has a decision.
    """
    rows = decision_rows(cycles)
    base = alt.Chart(values(rows)).encode(
        x=alt.X("cycle:O", title="cycle", axis=alt.Axis(labelAngle=0)),
        tooltip=["cycle:O", "action:N", "progress:Q", "grow:Q", "steps:Q", "measured:N", "reason:N"],
    )
    bars = base.mark_bar(size=22)
    panels = [
        _progress(base, [action for action in ACTIONS if any(row["action"] == action for row in rows)]),
        *(
            [bars.mark_bar(size=22, color=GREEN).encode(y=_axis("grow:Q", ["share of dense", "groups to grow"]))]
            if any(row["grow"] for row in rows)
            else []
        ),
        bars.mark_bar(size=22, color=PURPLE).encode(y=_axis("steps:Q", ["healing", "steps"])),
    ]
    sized = [panel.properties(width=max(320, STEP * len(rows)), height=HEIGHT) for panel in panels]
    return styled(alt.vconcat(*sized, spacing=16), title="What the controller decided for every cycle")


def decision_rows(cycles: Sequence[CycleRecord]) -> list[dict[str, object]]:
    """Cycle, and what a decision says; the measurements as one text."""
    return [
        {
            "cycle": record.cycle,
            **record.decision.model_dump(exclude={"measurements"}),
            "measured": ", ".join(f"{name} {value:.4g}" for name, value in record.decision.measurements.items()),
        }
        for record in cycles
        if record.decision
    ]


def _progress(base: alt.Chart, actions: Sequence[str]) -> alt.LayerChart:
    colours, shapes = ([ACTIONS[action][part] for action in actions] for part in (0, 1))
    shown = base.encode(y=_axis("progress:Q", ["share of the way", "to the target"], domain=[0, 1.15]))
    line = shown.mark_line(color="#BBBBBB", strokeWidth=1.5)
    points = shown.mark_point(filled=True, size=100, opacity=1).encode(
        color=alt.Color("action:N", title="action", scale=alt.Scale(domain=actions, range=colours)),
        shape=alt.Shape("action:N", title="action", scale=alt.Scale(domain=actions, range=shapes)),
    )
    names = shown.mark_text(dy=-13, fontSize=11).encode(text="action:N")
    return layered(line, points, names)


def _axis(field: str, title: list[str], domain: Sequence[float] | None = None) -> alt.Y:
    # As wide in every panel, so that the cycles stand below each other.
    axis = alt.Axis(minExtent=45, maxExtent=45, tickCount=5)
    return alt.Y(field, title=title, axis=axis, scale=alt.Scale(domain=domain) if domain else alt.Scale(zero=True))
