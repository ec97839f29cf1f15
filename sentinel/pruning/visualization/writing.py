"""Writes charts as files: pictures for readers and printers, and the specification for whoever draws them anew.

Without a network: vl-convert carries Vega, its letters and the engine that runs it, and may fetch nothing here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import altair as alt
import vl_convert

from sentinel.pruning.visualization.style import Chart

# Pixels of a PNG per pixel of the chart, so that it is sharp on screens of today and in print.
SCALE = 2.0
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])


def write_charts(charts: Mapping[str, Chart], folder: Path) -> None:
    """Every chart as `NAME.png`, `NAME.svg` and `NAME.vl.json`.

    Args:
        charts: By name.
        folder: Where to; made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in charts.items():
        document = chart.to_dict()
        (folder / f"{name}.vl.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        svg = vl_convert.vegalite_to_svg(document, vl_version=VEGA_LITE, allowed_base_urls=[])
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=SCALE))
