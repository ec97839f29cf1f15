"""Size and quality of several runs, and the front that no other run beats."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import altair as alt

from sentinel.pruning.visualization.style import BLACK, BLUE, GREY, layered, styled, values
from sentinel.result import Result

WIDTH, HEIGHT = 480, 300
# Of more runs only those on the front are named.
MOST_NAMES = 10
Cost = Literal["parameters", "kv_bytes_per_token", "latency_ms"]
COSTS: Mapping[Cost, str] = {
    "parameters": "parameters",
    "kv_bytes_per_token": "key-value cache (bytes per token)",
    "latency_ms": "forward pass over one window (ms)",
}


class RunPoint(NamedTuple):
    """A model in the plane of cost and loss.

    Attributes:
        name: Of its run; of a dense model `dense`.
        cost: In the unit of the cost.
        loss: Nats per token.
        kind: Whether no other run is as cheap and better.
    """

    name: str
    cost: float
    loss: float
    kind: Literal["dense", "front", "beaten"]


def pareto(results: Mapping[str, Result], *, cost: Cost) -> alt.LayerChart:
    """A point a run, the front as steps.

    Args:
        results: By the run's name; all under one protocol.
        cost: What is weighed against the loss.
    """
    points = run_points(results, cost=cost)
    base = alt.Chart(values([point._asdict() for point in points])).encode(
        x=alt.X("cost:Q", title=COSTS[cost], scale=alt.Scale(zero=False, padding=24)),
        y=alt.Y("loss:Q", title="held-out loss (nats per token)", scale=alt.Scale(zero=False, padding=24)),
        tooltip=["name:N", alt.Tooltip("cost:Q", title=COSTS[cost], format=","), alt.Tooltip("loss:Q", format=".4f")],
    )
    kinds = [kind for kind in ("front", "beaten", "dense") if any(point.kind == kind for point in points)]
    looks = {"front": (BLUE, "circle"), "beaten": (GREY, "cross"), "dense": (BLACK, "diamond")}
    marks = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[looks[kind][0] for kind in kinds])),
        shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[looks[kind][1] for kind in kinds])),
    )
    on_front = base.transform_filter("datum.kind == 'front'")
    steps = on_front.mark_line(interpolate="step-after", color=BLUE, strokeWidth=1, strokeDash=[4, 3])
    named = on_front if len(results) > MOST_NAMES else base.transform_filter("datum.kind != 'dense'")
    names = named.mark_text(align="left", dx=8, dy=-8, fontSize=11).encode(text="name:N")
    chart = layered(steps, marks, names).properties(width=WIDTH, height=HEIGHT)
    return styled(chart, title="Size and quality of the runs", subtitle="dashed: the front that no other run beats")


def run_points(results: Mapping[str, Result], *, cost: Cost) -> list[RunPoint]:
    """The cheapest first; every dense model once."""
    pruned = {name: (float(getattr(result.pruned, cost)), result.pruned.loss) for name, result in results.items()}
    front = _front(pruned)
    dense = {(float(getattr(result.dense, cost)), result.dense.loss) for result in results.values()}
    points = [
        *(RunPoint(name, *at, "front" if name in front else "beaten") for name, at in pruned.items()),
        *(RunPoint("dense", *at, "dense") for at in dense),
    ]
    return sorted(points, key=lambda point: (point.cost, point.loss))


def differing_costs(results: Sequence[Result]) -> list[Cost]:
    """Those by which the runs can be told apart."""
    return [cost for cost in COSTS if len({getattr(result.pruned, cost) for result in results}) > 1]


def _front(points: Mapping[str, tuple[float, float]]) -> set[str]:
    found, lowest = set(), math.inf
    for name, (_, loss) in sorted(points.items(), key=lambda entry: entry[1]):
        if loss < lowest:
            found.add(name)
            lowest = loss
    return found
