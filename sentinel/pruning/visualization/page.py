"""One HTML page with charts that answer to a pointer. It carries everything that it needs and fetches nothing."""

import html
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import vl_convert

from sentinel.pruning.visualization.style import Chart
from sentinel.pruning.visualization.writing import VEGA_LITE

_DRAW = """
for (const script of document.querySelectorAll('script[type="application/json"]')) {
  vegaEmbed(script.parentElement.querySelector('div'), JSON.parse(script.textContent), {actions: false});
}
"""


def write_page(charts: Mapping[str, Chart], file: Path, *, title: str) -> None:
    """Write it.

    Args:
        charts: By name, in the order in which they come.
        file: Where to.
        title: What stands on top.
    """
    sections = "\n".join(
        f'<section id="{html.escape(name)}"><div></div>{_data(chart)}</section>' for name, chart in charts.items()
    )
    said = html.escape(title)
    file.write_text(
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{said}</title></head>\n'
        f"<body>\n<h1>{said}</h1>\n{sections}\n<script>{_script()}</script>\n</body>\n</html>\n",
        encoding="utf-8",
    )


def _data(chart: Chart) -> str:
    """Its specification, in which nothing ends the element that it stands in."""
    document = json.dumps(chart.to_dict(), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json">{document}</script>'


@cache
def _script() -> str:
    """Vega, and what draws the charts with it; to put it together takes seconds."""
    return vl_convert.javascript_bundle(_DRAW, vl_version=VEGA_LITE)
