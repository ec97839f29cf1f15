"""What all charts look like: letters, colours, sizes. Knows no data.

Colours are told apart with any colour vision: those of Okabe and Ito (2008, "Color Universal Design") for kinds,
`cividis` (Nuñez, Anderton and Renslow 2018) for amounts. What a colour says, a shape or a sign says once more.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import altair as alt

Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart
SomeChart = TypeVar("SomeChart", bound=Chart)

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
KINDS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # without their yellow, which is lost on white
PALE = "#E3E3E3"
GREY = "#767676"
AMOUNTS: Final = "cividis"

# The writer of PNG brings the first with it; elsewhere one of the others has the same widths.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

PANEL_WIDTH, PANEL_HEIGHT = 360, 220
PAGE_WIDTH = 960
# Beyond so many layers or groups, squares are small and not every one is numbered.
MANY = 24
CELL, SMALL_CELL = 24, 11


def cell_size(*counts: int) -> int:
    """Side of a square in a map of so many rows and columns, in pixels."""
    return CELL if max(counts) <= MANY else SMALL_CELL


def layered(*charts: alt.Chart, **properties: Any) -> alt.LayerChart:  # noqa: ANN401 - whatever Altair takes
    """One chart on top of the other, the first at the bottom."""
    return alt.LayerChart(layer=list(charts), **properties)


def panels(panel: alt.Chart | alt.LayerChart, by: str, *, width: int, height: int) -> alt.FacetChart:
    """One of that size for each value of a field, named by it; as many side by side as a page takes."""
    header = alt.Header(labelExpr=f"'{by} ' + datum.value", title=None)
    columns = max(1, PAGE_WIDTH // (width + 40))
    return panel.properties(width=width, height=height).facet(
        facet=alt.Facet(f"{by}:O", header=header), columns=columns
    )


def span(numbers: Iterable[object], **properties: Any) -> alt.Scale:  # noqa: ANN401 - whatever Altair takes
    """A scale of these numbers alone; from 0 where all are one, which an axis would name rounded to a whole number."""
    return alt.Scale(zero=len(set(numbers)) < 2, **properties)


def values(rows: list[dict[str, object]]) -> alt.InlineData:
    """Rows as the data of a chart, carried in its specification."""
    return alt.InlineData(values=rows)


def styled(chart: SomeChart, *, title: str, subtitle: str | list[str] = "") -> SomeChart:
    """The finished chart: what is seen in it, and how it is written."""
    heading = alt.TitleParams(title, subtitle=subtitle, anchor="start", frame="group", offset=12)
    if not subtitle:
        heading = alt.TitleParams(title, anchor="start", frame="group", offset=12)
    return chart.properties(title=heading, background="white", padding=12).configure(
        font=FONT,
        title=alt.TitleConfig(fontSize=15, fontWeight="bold", subtitleFontSize=12, subtitleColor="#444444"),
        axis=alt.AxisConfig(
            labelFontSize=11,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor="#EEEEEE",
            labelOverlap=True,
            labelFlush=False,
        ),
        header=alt.HeaderConfig(labelFontSize=12, titleFontSize=12, titleFontWeight="normal"),
        legend=alt.LegendConfig(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", titleLimit=400),
        view=alt.ViewConfig(stroke=None),
    )
