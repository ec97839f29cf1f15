"""Held-out loss, and divergence from the dense model, after every stage of every cycle."""

from collections.abc import Mapping, Sequence

import altair as alt

from sentinel.pruning.visualization.style import (
    BLUE,
    GREEN,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    VERMILLION,
    layered,
    span,
    styled,
    values,
)
from sentinel.utils.series import Point, Series

# Stage → what its series begin with, colour and shape.
STAGES: Mapping[str, tuple[str, str, str]] = {
    "after the cut": ("pruned", VERMILLION, "triangle-down"),
    "after healing": ("healed", BLUE, "circle"),
    "after growth": ("grown", GREEN, "triangle-up"),
}
QUANTITIES: Mapping[str, str] = {"loss": "held-out loss", "kl": "KL(dense ‖ pruned)"}


def losses(series: Series) -> alt.HConcatChart:
    """Loss beside divergence; stages and quantities that were not recorded are left out.

    Args:
        series: With the loss of one stage at least.
    """
    dense = [point.value for point in series.get("dense_loss", ())]
    panels = [
        _panel(rows, f"{said} (nats per token)", dense[:1] if quantity == "loss" else [])
        for quantity, said in QUANTITIES.items()
        if (rows := stage_rows(series, quantity))
    ]
    return styled(
        alt.hconcat(*panels, spacing=36),
        title="Held-out text after every stage of a cycle",
        subtitle="dashed: the dense model's loss" if dense else "",
    )


def stage_rows(series: Series, quantity: str) -> list[dict[str, object]]:
    """Cycle, stage, value."""
    return [
        {"cycle": point.cycle, "stage": stage, "value": point.value}
        for stage, (name, _, _) in STAGES.items()
        for point in series.get(f"{name}_{quantity}", ())
    ]


def _panel(rows: list[dict[str, object]], title: str, dense: Sequence[float]) -> alt.LayerChart:
    shown = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    colours, shapes = ([STAGES[stage][part] for stage in shown] for part in (1, 2))
    points = (
        alt.Chart(values(rows))
        .mark_line(point=alt.OverlayMarkDef(size=70, filled=True), strokeWidth=1.5)
        .encode(
            x=alt.X("cycle:O", title="cycle", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title=title, scale=span([*(row["value"] for row in rows), *dense])),
            color=alt.Color("stage:N", title=None, scale=alt.Scale(domain=shown, range=colours)),
            shape=alt.Shape("stage:N", title=None, scale=alt.Scale(domain=shown, range=shapes)),
            tooltip=["cycle:O", "stage:N", alt.Tooltip("value:Q", title=title, format=".4f")],
        )
    )
    rule = (
        alt.Chart(values([{"value": value} for value in dense]))
        .mark_rule(strokeDash=[5, 4], color="#555555")
        .encode(y="value:Q")
    )
    return layered(*([rule] if dense else []), points).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)


def has_losses(series: Mapping[str, Sequence[Point]]) -> bool:
    """Whether there is anything to draw."""
    return bool(stage_rows(series, "loss"))
