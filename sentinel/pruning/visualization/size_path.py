"""What a run paid for its size: held-out loss against what the target counts, cycle by cycle."""

from collections.abc import Collection, Mapping, Sequence

import altair as alt

from sentinel.manifest import Unit
from sentinel.pruning.visualization.style import BLACK, BLUE, PANEL_HEIGHT, PANEL_WIDTH, layered, span, styled, values
from sentinel.result import CycleRecord, Measurement, Result

COSTS = {
    "sparsity": "groups left",
    "parameters": "parameters",
    "flops": "FLOPs per token",
    "kv_bytes": "key-value cache (bytes per token)",
    "latency_ms": "forward pass over one window (ms)",
}


def size_path(result: Result, *, dense_groups: int) -> alt.LayerChart:
    """From the dense model on, a point a cycle.

    Args:
        result: With one cycle at least.
        dense_groups: How many groups the dense model has of the units that the target of `sparsity` counts.
    """
    kind = result.cycles[0].cost.kind
    rows = path_rows(result, dense_groups=dense_groups)
    base = alt.Chart(values(rows)).encode(
        x=alt.X("cost:Q", title=COSTS[kind], scale=span((row["cost"] for row in rows), padding=20)),
        y=alt.Y(
            "loss:Q", title="held-out loss (nats per token)", scale=span((row["loss"] for row in rows), padding=20)
        ),
        order="cycle:Q",
        tooltip=[
            "model:N",
            alt.Tooltip("cost:Q", title=COSTS[kind], format=",.6~g"),
            alt.Tooltip("loss:Q", format=".4f"),
        ],
    )
    line = base.mark_line(color=BLUE, strokeWidth=1.5)
    of_dense = "datum.cycle == 0"
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=alt.when(of_dense).then(alt.value(BLACK)).otherwise(alt.value(BLUE)),
        shape=alt.when(of_dense).then(alt.value("diamond")).otherwise(alt.value("circle")),
    )
    names = base.mark_text(align="left", dx=8, dy=-8, fontSize=11).encode(text="model:N")
    chart = layered(line, points, names).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    return styled(chart, title="Size and quality after every cycle")


def path_rows(result: Result, *, dense_groups: int) -> list[dict[str, object]]:
    """Cycle, model, cost, loss; the dense model is cycle 0, where its cost is known."""
    kind = result.cycles[0].cost.kind
    dense = dense_cost(result.dense, kind, dense_groups)
    start: list[dict[str, object]] = [
        {"cycle": 0, "model": "dense", "cost": cost, "loss": result.dense.loss} for cost in [dense] if cost is not None
    ]
    return start + [_row(record) for record in result.cycles]


def groups_to_prune(units: Collection[str], dense_counts: Mapping[Unit, Sequence[int]]) -> int:
    """The dense model's groups of `prune.units`; of whole layers alone, every attention and every MLP is one."""
    if "layer" in units:
        return sum(count > 0 for counts in dense_counts.values() for count in counts)
    return sum(sum(counts) for unit, counts in dense_counts.items() if unit in units)


def dense_cost(dense: Measurement, kind: str, groups: int) -> float | None:
    """What the dense model costs, as the target counts; None of FLOPs, which are not measured of it."""
    match kind:
        case "sparsity":
            return groups
        case "parameters":
            return dense.parameters
        case "kv_bytes":
            return dense.kv_bytes_per_token
        case "latency_ms":
            return dense.latency_ms
    return None


def _row(record: CycleRecord) -> dict[str, object]:
    return {
        "cycle": record.cycle,
        "model": f"cycle {record.cycle}",
        "cost": record.cost.measured,
        "loss": record.loss,
    }
