"""Files of charts: that there is something on them, that they carry no script, that they fetch nothing."""

import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from PIL import Image, ImageColor

from sentinel.pruning.visualization.charts import charts_of_run
from sentinel.pruning.visualization.kept_groups import kept_groups
from sentinel.pruning.visualization.page import write_page
from sentinel.pruning.visualization.style import BLUE, CELL, PALE
from sentinel.pruning.visualization.writing import SCALE, write_charts
from sentinel.utils import sandbox
from tests.unit.pruning.visualization.records import HOSTILE, everything

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def charts():
    return charts_of_run(*everything())


@pytest.fixture(scope="module")
def folder(charts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    write_charts(charts, folder)
    return folder


def test_every_chart_is_there_in_three_forms(charts, folder):
    names = {f"{name}.{ending}" for name in charts for ending in ("png", "svg", "vl.json")}
    assert {file.name for file in folder.iterdir()} == names
    for name, chart in charts.items():
        assert json.loads((folder / f"{name}.vl.json").read_bytes()) == chart.to_dict()


def test_no_picture_is_blank(charts, folder):
    for name in charts:
        with Image.open(folder / f"{name}.png") as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height)
        white = max(count for count, colour in colours if colour == (255, 255, 255))
        assert 0.3 < white / (picture.width * picture.height) < 0.98, name
        assert len(colours) > 20, name


def test_what_is_kept_has_as_many_squares_of_its_colour(tmp_path):
    write_charts({"groups": kept_groups([[0, 1, 2], [1]], [4, 4], unit="attention")}, tmp_path)
    with Image.open(tmp_path / "groups.png") as picture:
        colours = {c: n for n, c in picture.convert("RGB").getcolors(maxcolors=10**6)}
    square = (CELL * SCALE) ** 2
    kept, gone = (colours[ImageColor.getrgb(colour)] / square for colour in (BLUE, PALE))
    # Less than whole squares for the white lines between them, and more for their signs in the legend.
    assert kept == pytest.approx(4, rel=0.15)
    assert gone == pytest.approx(4, rel=0.15)


def test_svg_is_text_with_letters_and_neither_scripts_nor_links(charts, folder):
    for name in charts:
        root = ET.parse(folder / f"{name}.svg").getroot()
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert "text" in tags
        assert not tags & {"script", "foreignObject", "image", "a", "use", "iframe"}, name
        attributes = [key for element in root.iter() for key in element.attrib]
        assert not [key for key in attributes if key.startswith("on") or key.endswith("href")], name


def test_a_page_holds_its_charts_and_nothing_that_a_reason_put_into_it(charts, tmp_path):
    write_page(charts, tmp_path / "index.html", title=HOSTILE)
    page = (tmp_path / "index.html").read_text()
    assert "alert(1)</script>" not in page
    head, *sections = page.split("<section ")
    assert "&lt;script&gt;alert(1)" in head
    documents = [s.partition('type="application/json">')[2].partition("</script>")[0] for s in sections]
    assert [json.loads(document) for document in documents] == [chart.to_dict() for chart in charts.values()]
    assert json.dumps(HOSTILE) in json.dumps(json.loads(documents[list(charts).index("decisions")]))
    assert ' src="' not in page.partition("<script>")[0]
    assert "<link" not in head


@pytest.mark.skipif(sandbox.network_obstacle() is not None, reason=f"{sandbox.network_obstacle()}")
def test_nothing_is_fetched(tmp_path):
    """By a process that the kernel lets open no socket to anywhere."""
    code = f"""
import socket
from pathlib import Path
from sentinel.pruning.visualization.losses import losses
from sentinel.pruning.visualization.page import write_page
from sentinel.pruning.visualization.writing import write_charts
from sentinel.utils import sandbox
from sentinel.utils.series import Point
sandbox.cut_network()
try:
    socket.socket()
except OSError:
    charts = {{"losses": losses({{"pruned_loss": [Point(0, 1.0, 1)]}})}}
    write_charts(charts, Path({str(tmp_path)!r}))
    write_page(charts, Path({str(tmp_path)!r}) / "index.html", title="A run")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"losses.png", "losses.svg", "losses.vl.json", "index.html"}
