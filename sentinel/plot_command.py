"""`sentinel plot`: the pictures of one run, or of several together. Reads output folders; asks no service."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sentinel.access import AsJson
from sentinel.errors import Fault, SentinelError
from sentinel.outcomes import output as console

if TYPE_CHECKING:  # Altair takes half a second, which `--help` can do without
    from sentinel.pruning.visualization.reading import RecordedRun

PAGE = "index.html"


class RunsIncomparable(SentinelError):
    """Losses of different texts, or told under different protocols, stand in no order."""

    code = "runs_incomparable"
    fault = Fault.USER
    next_step = "Name runs with the same evaluation text and sequence length."


def register(app: typer.Typer) -> None:
    """Add the command of this module to the `sentinel` command."""
    app.command()(plot)


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of `sentinel run`.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and a page with all of them.")],
    as_json: AsJson = False,
) -> None:
    """Draw a run, or several in comparison: PNG, SVG, Vega-Lite, and one HTML page that needs no network."""
    from sentinel.pruning.visualization.charts import charts_of_run, charts_of_runs
    from sentinel.pruning.visualization.page import write_page
    from sentinel.pruning.visualization.reading import read_run
    from sentinel.pruning.visualization.writing import write_charts

    recorded = {name: read_run(folder) for name, folder in _named(runs).items()}
    _check_comparable(recorded)
    charts = charts_of_run(*recorded[next(iter(recorded))]) if len(recorded) == 1 else charts_of_runs(recorded)
    write_charts(charts, output)
    write_page(charts, output / PAGE, title=" · ".join(recorded))
    _show(recorded, sorted(charts), output, as_json=as_json)


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """By the folder's own name, or by the whole path where that is not the only one of its name."""
    different = list(dict.fromkeys(folders))
    names = Counter(folder.resolve().name for folder in different)
    return {name if names[name := folder.resolve().name] == 1 else str(folder): folder for folder in different}


def _check_comparable(recorded: "Mapping[str, RecordedRun]") -> None:
    (first, known), *others = recorded.items()
    for name, other in others:
        if other.run.result.protocol != known.run.result.protocol:
            raise RunsIncomparable(f"{first} and {name} were not measured on the same text under the same protocol.")


def _show(recorded: "Mapping[str, RecordedRun]", charts: Sequence[str], folder: Path, *, as_json: bool) -> None:
    """The last value of every series that all runs have, and where the pictures are."""
    from sentinel.utils.series import compare

    last = compare({name: run.series for name, run in recorded.items()})
    if as_json:
        print(json.dumps({"output": str(folder), "charts": charts, "last": last}))
        return
    table = Table("last value of", *map(escape, recorded), box=None, pad_edge=False)
    for name, values in last.items():
        table.add_row(name, *(f"{value:.4f}" for value in values.values()))
    console().print(table)
    console().print(f"{len(charts)} pictures: {folder / PAGE}", markup=False, highlight=False)
