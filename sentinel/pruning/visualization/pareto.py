"""Size and quality of several runs, and the front that no other run beats."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import altair as alt

from sentinel.pruning.visualization.style import AMOUNTS, BLACK, GREY, KINDS, layered, styled, values
from sentinel.result import Result

WIDTH, HEIGHT = 480, 300
Cost = Literal["parameters", "kv_bytes_per_token", "latency"]
COSTS: Mapping[Cost, str] = {
    "parameters": "parameters",
    "kv_bytes_per_token": "key-value cache (bytes per token)",
    # Milliseconds of different runs were measured at different times, each beside those of its dense model.
    "latency": "time of a forward pass (1: the run's dense model)",
}
SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right", "triangle-left", "wedge")
DENSE, OTHERS = "dense", "other runs"


class RunPoint(NamedTuple):
    """A model in the plane of cost and loss.

    Attributes:
        name: Of its run; of a dense model `dense`.
        cost: In the unit of the cost.
        loss: Nats per token.
        front: Whether no other run is as cheap and better.
        label: What the legend calls it.
    """

    name: str
    cost: float
    loss: float
    front: bool
    label: str


def pareto(results: Mapping[str, Result], *, cost: Cost) -> alt.LayerChart:
    """A point a run, the front as steps; where there are many runs, those on the front alone have names.

    Args:
        results: By the run's name; all under one protocol. One that is called what the legend calls others by is
            told from them.
        cost: What is weighed against the loss.
    """
    runs = {f"run {name}" if name in (DENSE, OTHERS) else name: result for name, result in results.items()}
    points = run_points(runs, cost=cost)
    base = alt.Chart(values([point._asdict() for point in points])).encode(
        x=alt.X("cost:Q", title=COSTS[cost], scale=alt.Scale(zero=False, padding=24)),
        y=alt.Y("loss:Q", title="held-out loss (nats per token)", scale=alt.Scale(zero=False, padding=24)),
        tooltip=[
            "name:N",
            alt.Tooltip("cost:Q", title=COSTS[cost], format=",.6~g"),
            alt.Tooltip("loss:Q", format=".4f"),
        ],
    )
    colours, shapes = _looks([label for name in (*runs, DENSE) for label in _labels_of(points, name)])
    marks = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.Color("label:N", title=None, scale=colours), shape=alt.Shape("label:N", title=None, scale=shapes)
    )
    front = base.transform_filter("datum.front")
    steps = front.mark_line(interpolate="step-after", color=GREY, strokeWidth=1, strokeDash=[4, 3])
    chart = layered(steps, marks).properties(width=WIDTH, height=HEIGHT)
    return styled(chart, title="Size and quality of the runs", subtitle="dashed: the front that no other run beats")


def run_points(results: Mapping[str, Result], *, cost: Cost) -> list[RunPoint]:
    """The cheapest first; every dense model once."""
    pruned = {name: (_cost(result, cost), result.pruned.loss) for name, result in results.items()}
    front = _front(pruned)
    dense = {(_dense_cost(result, cost), result.dense.loss) for result in results.values()}
    named = front if len(results) > len(KINDS) else set(results)
    points = [
        *(RunPoint(name, *at, name in front, name if name in named else OTHERS) for name, at in pruned.items()),
        *(RunPoint(DENSE, *at, front=False, label=DENSE) for at in dense),
    ]
    return sorted(points, key=lambda point: (point.cost, point.loss))


def differing_costs(results: Sequence[Result]) -> list[Cost]:
    """Those by which the runs can be told apart."""
    return [cost for cost in COSTS if len({_cost(result, cost) for result in results}) > 1]


def _cost(result: Result, cost: Cost) -> float:
    if cost == "latency":
        return result.pruned.latency_ms / result.dense.latency_ms
    return float(getattr(result.pruned, cost))


def _dense_cost(result: Result, cost: Cost) -> float:
    return 1.0 if cost == "latency" else float(getattr(result.dense, cost))


def _front(points: Mapping[str, tuple[float, float]]) -> set[str]:
    found, lowest = set(), math.inf
    for name, (_, loss) in sorted(points.items(), key=lambda entry: entry[1]):
        if loss < lowest:
            found.add(name)
            lowest = loss
    return found


def _labels_of(points: Sequence[RunPoint], name: str) -> list[str]:
    return [point.label for point in points if point.name == name]


def _looks(labels: Sequence[str]) -> tuple[alt.Scale, alt.Scale]:
    """Colour and shape of every label."""
    runs = [label for label in dict.fromkeys(labels) if label not in (DENSE, OTHERS)]
    fixed = {OTHERS: (GREY, "cross"), DENSE: (BLACK, "diamond")}
    rest = [label for label in fixed if label in labels]
    if len(runs) > len(KINDS):
        return alt.Scale(domain=[*runs, *rest], scheme=AMOUNTS), alt.Scale(domain=[*runs, *rest])
    colours = [*KINDS[: len(runs)], *(fixed[label][0] for label in rest)]
    shapes = [*SHAPES[: len(runs)], *(fixed[label][1] for label in rest)]
    return alt.Scale(domain=[*runs, *rest], range=colours), alt.Scale(domain=[*runs, *rest], range=shapes)
