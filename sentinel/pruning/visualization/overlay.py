"""One series of several runs in one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from sentinel.pruning.visualization.healing import thinned
from sentinel.pruning.visualization.losses import QUANTITIES, STAGES
from sentinel.pruning.visualization.style import AMOUNTS, KINDS, span, styled, values
from sentinel.utils.series import Point

WIDTH, HEIGHT = 560, 260
NAMES = {
    f"{stage}_{quantity}": f"{said} {when}"
    for when, (stage, _, _) in STAGES.items()
    for quantity, said in QUANTITIES.items()
} | {"healing_loss": "healing loss, training text", "healing_held_out_loss": "held-out loss while healing"}


def overlay(runs: Mapping[str, Sequence[Point]], *, name: str) -> alt.Chart:
    """A line a run, over cycles where there is one point a cycle, over healing steps otherwise.

    Args:
        runs: The points of each run.
        name: Of the series.
    """
    by_cycle = all(one_a_cycle(points) for points in runs.values())
    rows: list[dict[str, object]] = [
        {"run": run, **point._asdict()} for run, points in runs.items() for point in thinned(points)
    ]
    said = NAMES.get(name, name.replace("_", " "))
    base = alt.Chart(values(rows)).encode(
        x=alt.X("cycle:O", title="cycle", axis=alt.Axis(labelAngle=0)) if by_cycle else alt.X("step:Q", title="step"),
        y=alt.Y(
            "value:Q",
            title=f"{said} (nats per token)" if name in NAMES else said,
            scale=span(row["value"] for row in rows),
        ),
        color=alt.Color("run:N", title="run", scale=_colours(list(runs))),
        tooltip=["run:N", "step:Q", "cycle:O", alt.Tooltip("value:Q", format=".4f")],
    )
    of_run: dict[str, Any] = {"title": "run", "scale": alt.Scale(domain=list(runs))}
    if by_cycle:
        points = alt.OverlayMarkDef(filled=True, size=60)
        chart = base.mark_line(point=points, strokeWidth=1.5).encode(shape=alt.Shape("run:N", **of_run))
    else:
        chart = base.mark_line(strokeWidth=1.5).encode(strokeDash=alt.StrokeDash("run:N", **of_run), detail="cycle:N")
    return styled(chart.properties(width=WIDTH, height=HEIGHT), title=f"{said[:1].upper()}{said[1:]}: {len(runs)} runs")


def one_a_cycle(points: Sequence[Point]) -> bool:
    """Whether no two points share a cycle, and all have one."""
    cycles = [point.cycle for point in points]
    return None not in cycles and len(set(cycles)) == len(cycles)


def _colours(runs: list[str]) -> alt.Scale:
    if len(runs) <= len(KINDS):
        return alt.Scale(domain=runs, range=KINDS[: len(runs)])
    return alt.Scale(domain=runs, scheme=AMOUNTS)
