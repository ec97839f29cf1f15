"""Draw every picture of real runs, for `docs/gallery.md` and the README.

`make gallery` runs it: the built-in model is pruned and healed as the specs below say, a few minutes on a processor.
Nothing in the gallery is made up: a picture whose numbers no run records is not in it.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sentinel import experiment
from sentinel.display import ProgressDisplay
from sentinel.pruning.visualization.charts import charts_of_run, charts_of_runs
from sentinel.pruning.visualization.reading import RecordedRun, read_run
from sentinel.pruning.visualization.style import Chart
from sentinel.pruning.visualization.writing import write_charts
from sentinel.spec import parse_spec

DOCS = Path(__file__).resolve().parents[1] / "docs"
STRATEGIES = ("taylor", "magnitude", "random")
PARAMETERS = (600_000, 450_000)
# Whose pictures are shown; all of them are compared.
SHOWN = ("taylor", 450_000)
HEAD = """# Gallery

Every picture that real runs of the built-in model have, as `make gallery` has drawn them: {runs} runs of {cycles}
cycles, by {strategies}, down to {parameters} of {dense:,} parameters, healed {steps} steps a
cycle, with an exchange behind each but the last. What each shows is in [pictures.md](pictures.md).

## One run: {shown}, {target:,} parameters

{table}
"""


def spec(strategy: str, parameters: int, *, controlled: bool = False) -> dict[str, Any]:
    """One of the runs."""
    return {
        "model": "builtin/llama",
        "data": {"source": "builtin", "sequence_length": 128},
        "prune": {
            "units": ["attention", "mlp"],
            "strategy": strategy,
            "target": {"parameters": parameters},
            "cycles": 4,
            "schedule": "linear",
            "allocation": "global",
            "compensation": "least_squares",
            "search": None,
            "calibration_sequences": 32,
        },
        "heal": {"steps": 60, "batch_tokens": 512, "learning_rate": 5e-4, "evaluate_every": 15},
        "grow": {"steps": 20, "fraction": 0.1},
        "controller": {"kind": "rule"} if controlled else None,
        "evaluate": {"tokens": 8192},
        "device": "cpu",
    }


def main() -> None:
    """Run, draw, write the page."""
    images = DOCS / "images"
    with tempfile.TemporaryDirectory() as folder:
        runs = dict(_runs(Path(folder)))
        decided = _run(Path(folder) / "controlled", spec(*SHOWN, controlled=True))
        shown = runs[_name(*SHOWN)]
        table = _before_and_after(Path(folder) / _name(*SHOWN))
    of_one, of_all = charts_of_run(*shown), charts_of_runs(runs)
    decisions = {name: chart for name, chart in charts_of_run(*decided).items() if name == "decisions"}
    for old in images.glob("*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as drawn:
        write_charts(of_one | of_all | decisions, Path(drawn))
        images.mkdir(exist_ok=True)
        for file in Path(drawn).glob("*.png"):
            shutil.copyfile(file, images / file.name)
    (DOCS / "gallery.md").write_text(_page(shown, table, of_one, of_all, decisions), encoding="utf-8")


def _runs(folder: Path) -> Iterator[tuple[str, RecordedRun]]:
    for strategy in STRATEGIES:
        for parameters in PARAMETERS:
            name = _name(strategy, parameters)
            yield name, _run(folder / name, spec(strategy, parameters))


def _run(folder: Path, document: dict[str, Any]) -> RecordedRun:
    with ProgressDisplay(Console()) as display:
        experiment.run(parse_spec(document), output=folder, reporter=display)
    return read_run(folder)


def _name(strategy: str, parameters: int) -> str:
    return f"{strategy} {parameters // 1000}k"


def _before_and_after(run: Path) -> str:
    """The table of the checkpoint's card."""
    card = (run / "checkpoint" / "README.md").read_text(encoding="utf-8")
    return card.partition("## Before and after\n\n")[2].partition("\n## ")[0].strip()


def _page(
    shown: RecordedRun,
    table: str,
    of_one: Mapping[str, Chart],
    of_all: Mapping[str, Chart],
    decisions: Mapping[str, Chart],
) -> str:
    strategy, target = SHOWN
    wanted = parse_spec(spec(*SHOWN))
    head = HEAD.format(
        runs=len(STRATEGIES) * len(PARAMETERS),
        cycles=wanted.prune.cycles,
        strategies=", ".join(f"`{name}`" for name in STRATEGIES),
        parameters=" and ".join(f"{parameters:,}" for parameters in PARAMETERS),
        dense=shown.run.result.dense.parameters,
        steps=wanted.heal.steps if wanted.heal else 0,
        shown=f"`{strategy}`",
        target=target,
        table=table,
    )
    return "\n".join(
        [
            head,
            *map(_section, of_one.items()),
            "## The same run, controlled by rule\n",
            *map(_section, decisions.items()),
            "## All runs\n",
            *map(_section, of_all.items()),
        ]
    )


def _section(drawn: tuple[str, Chart]) -> str:
    name, chart = drawn
    title = chart.to_dict()["title"]["text"]
    return f"### {title}\n\n![{title}](images/{name}.png)\n"


if __name__ == "__main__":
    main()
