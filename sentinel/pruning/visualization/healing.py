"""What healing made smaller, step by step, and the held-out loss on the way."""

from collections.abc import Mapping, Sequence

import altair as alt

from sentinel.pruning.visualization.style import BLUE, GREEN, GREY, VERMILLION, layered, span, styled, values
from sentinel.utils.series import Point, Series

# More are drawn as means of neighbours: a line has no more pixels.
MOST_POINTS = 600
# So many are marked each.
FEW = 40
WIDTH, HEIGHT = 700, 160
OBJECTIVES = {"distill": "distillation loss", "cross_entropy": "cross-entropy"}
PANELS: Mapping[str, tuple[str, str]] = {
    "warm_up_loss": ("training text, before the first cut", GREEN),
    "healing_loss": ("training text", BLUE),
    "healing_held_out_loss": ("held-out text", VERMILLION),
}


def healing(series: Series, *, objective: str) -> alt.VConcatChart:
    """A panel a loss, one below the other; thin lines where a cycle's healing begins.

    Args:
        series: With at least one of the losses.
        objective: What the first is, as `heal.loss` says it.
    """
    titles = dict.fromkeys(PANELS, OBJECTIVES["cross_entropy"]) | {"healing_loss": OBJECTIVES[objective]}
    begins = cycle_starts(series)
    panels = [
        _panel(thinned(series[name]), title=[titles[name], f"{text} (nats per token)"], colour=colour, begins=begins)
        for name, (text, colour) in PANELS.items()
        if series.get(name)
    ]
    chart = alt.vconcat(*panels, spacing=20).resolve_scale(x="shared")
    most = max(len(points) for name in PANELS if (points := series.get(name)))
    means = f"; a point is the mean of {_run_length(most)} steps" if most > MOST_POINTS else ""
    return styled(chart, title="Healing, step by step", subtitle=f"grey lines: the healing of a cycle begins{means}")


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS`: means of neighbours within a cycle, at the last one's step."""
    length = _run_length(len(points))
    runs: list[list[Point]] = []
    for point in points:
        if not runs or len(runs[-1]) == length or runs[-1][-1].cycle != point.cycle:
            runs.append([])
        runs[-1].append(point)
    return [Point(run[-1].step, sum(p.value for p in run) / len(run), run[-1].cycle) for run in runs]


def cycle_starts(series: Series) -> list[int]:
    """The step before the first of each cycle's healing."""
    firsts: dict[int | None, int] = {}
    for point in series.get("healing_loss", ()):
        firsts.setdefault(point.cycle, point.step - 1)
    return sorted(firsts.values())


def _run_length(points: int) -> int:
    return -(-points // MOST_POINTS)


def _panel(points: Sequence[Point], *, title: list[str], colour: str, begins: Sequence[int]) -> alt.LayerChart:
    x = alt.X("step:Q", title="healing step")
    rules = alt.Chart(values([{"step": step} for step in begins])).mark_rule(color=GREY, opacity=0.6).encode(x=x)
    line = (
        alt.Chart(values([point._asdict() for point in points]))
        .mark_line(
            color=colour, strokeWidth=1.5, point=alt.OverlayMarkDef(color=colour) if len(points) <= FEW else False
        )
        .encode(
            x=x,
            y=alt.Y("value:Q", title=title, scale=span(p.value for p in points), axis=alt.Axis(minExtent=30)),
            detail="cycle:N",
            tooltip=["step:Q", "cycle:O", alt.Tooltip("value:Q", title=title[0], format=".4f")],
        )
    )
    return layered(rules, line).properties(width=WIDTH, height=HEIGHT)
