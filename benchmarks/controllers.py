"""Claim: a learned controller gets better from job to job, until its models are better than a plain schedule's.

Every arm ends with as many attention groups, has as many cycles, and may take as many healing steps:

- plain: the cubic schedule, equal steps in every cycle, no controller;
- rule: a controller by fixed thresholds;
- learned: a controller that begins with nothing known. Chains of jobs in a row, each of which takes up the
  `controller.json` that the last one left; what a chain came to is then judged without exploring.

Plain, rule and every chain's last experience are judged on the same seeds, of which no chain has seen any, and the same
windows of text; `differences` are taken seed by seed. A seed changes the order of the text and what a controller draws.

`loss` is in nats per token and `kl` is KL(dense ‖ model) on text that no arm decides by: means over the seeds, for
`learned` over the chains, too. `spread` is the standard deviation over the seeds, in `curve` over the chains; `size`
is the parameters that are left, `steps` the healing steps taken.

Models and text are those of ../shared, or what is built in, which needs neither.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import altair as alt
import torch
import vl_convert
from rich.console import Console
from rich.table import Table

from sentinel.controller.saved import CONTROLLER_FILE
from sentinel.events import Event
from sentinel.experiment import run
from sentinel.models import builtin
from sentinel.pruning.visualization.style import BLUE, GREEN, VERMILLION, layered, styled, values
from sentinel.pruning.visualization.writing import SCALE, VEGA_LITE
from sentinel.result import CycleRecord, DecisionRecord
from sentinel.spec import parse_spec

SHARED = Path(__file__).resolve().parents[2] / "shared"
BUILTIN = ("gpt2", "llama")
MODELS = ("stories260K", "babyllama-tok361", *BUILTIN)
ARMS = {"plain": "plain schedule", "rule": "rule", "learned": "learned, not exploring"}
BIN = 5  # runs of a chain that make a point of the curve


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What one run came to.

    Attributes:
        actions: What was done in each cycle.
    """

    seed: int
    dense: float
    loss: float
    kl: float
    size: int
    steps: int
    actions: tuple[str, ...]


class Quiet:
    """Listens to nothing."""

    def emit(self, event: Event) -> None:
        """As an experiment calls it."""


def document(
    folder: Path, model: str, seed: int, controller: dict[str, Any] | None, options: argparse.Namespace
) -> dict[str, Any]:
    """The spec of one run, of the model that lies in the folder."""
    data = (
        {"source": "builtin"}
        if model in BUILTIN
        else {"source": "path", "train": str(SHARED / "text" / "tinystories_train_2M.txt")}
    )
    return {
        "model": {"source": "path", "path": str(folder)},
        "data": {**data, "sequence_length": options.sequence_length},
        "prune": {
            "strategy": "energy",
            "compensation": "least_squares",
            "search": None,
            "target": {"sparsity": options.sparsity},
            "cycles": options.cycles,
            "calibration_sequences": options.calibration_sequences,
        },
        "heal": {
            "steps": options.steps // options.cycles,
            "batch_tokens": options.batch_tokens,
            "learning_rate": options.learning_rate,
            # Text is kept out of healing where a controller decides by it: here too, for all arms to see the same.
            "evaluate_every": options.steps // options.cycles if controller is None else None,
        },
        "controller": controller,
        "evaluate": {"tokens": options.evaluation_tokens, "prompts": []},
        "device": "cpu",
        "seed": seed,
    }


def prune(
    model: str,
    seed: int,
    controller: dict[str, Any] | None,
    options: argparse.Namespace,
    *,
    experience: str | None = None,
) -> tuple[Ending, str | None]:
    """One run, beginning with that `controller.json`; how it ended, and the one that it left."""
    with tempfile.TemporaryDirectory() as folder:
        dense, output = Path(folder, "dense"), Path(folder, "output")
        shutil.copytree(Path(*builtin.__path__, model) if model in BUILTIN else SHARED / "models" / model, dense)
        if controller and experience:
            (dense / CONTROLLER_FILE).write_text(experience, encoding="utf-8")
            controller = {**controller, "state": "checkpoint"}
        spec = parse_spec(document(dense, model, seed, controller, options))
        result = run(spec, output=output, reporter=Quiet(), save_interval_s=3600)
        left = output / "checkpoint" / CONTROLLER_FILE
        left_behind = left.read_text(encoding="utf-8") if left.exists() else None
    ending = Ending(
        seed=seed,
        dense=result.dense.loss,
        loss=result.pruned.loss,
        kl=result.pruned.kl_to_dense,
        size=result.pruned.parameters,
        steps=sum(record.healing_steps for record in result.cycles),
        actions=actions(result.cycles, options),
    )
    print(
        f"{model}, {controller['kind'] if controller else 'plain'}, seed {seed}: loss {ending.loss:.4f}, "
        f"{' '.join(ending.actions)}, {ending.steps} steps",
        flush=True,
    )
    return ending, left_behind


def actions(cycles: Sequence[CycleRecord], options: argparse.Namespace) -> tuple[str, ...]:
    """What was done in each, in the words of docs/controller.md."""
    left, done = options.steps, []
    for record in cycles:
        fair = left / (options.cycles - record.cycle + 1)
        done.append(action(record.decision, fair=fair) if record.decision else "plan")
        left -= record.healing_steps
    return tuple(done)


def action(decision: DecisionRecord, *, fair: float) -> str:
    """What a decision told to do; `fair` is a fair share of the healing steps."""
    if decision.action != "prune":
        return decision.action
    measured = decision.measurements
    if decision.progress > max(measured["planned"], 1 - measured["way_left"]):
        return "further"
    return "spare" if decision.steps < round(fair) else "plan"


def learn(task: tuple[str, int, argparse.Namespace]) -> tuple[list[Ending], str]:
    """A chain: how its runs ended, and what the last left."""
    model, chain, options = task
    torch.set_num_threads(1)
    endings, experience = [], None
    for job in range(options.runs):
        seed = 1000 * (chain + 1) + job
        ending, experience = prune(model, seed, {"kind": "learned"}, options, experience=experience)
        endings.append(ending)
    assert experience is not None  # noqa: S101 - a chain has at least one run, and a learned controller leaves its file
    return endings, experience


def judge(task: tuple[str, str, int, str | None, argparse.Namespace]) -> Ending:
    """One run of an arm on one seed."""
    model, arm, seed, experience, options = task
    torch.set_num_threads(1)
    sections: dict[str, dict[str, Any] | None] = {
        "plain": None,
        "rule": {"kind": "rule"},
        "learned": {"kind": "learned", "explore": False},
    }
    return prune(model, seed, sections[arm], options, experience=experience)[0]


def spread(numbers: Sequence[float]) -> float:
    """Standard deviation; 0 of one."""
    return statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def summary(endings: Sequence[Ending], plain: dict[int, float]) -> dict[str, Any]:
    """Of one arm; `plain` has the plain schedule's loss on each seed."""
    by_seed = {seed: [ending for ending in endings if ending.seed == seed] for seed in plain}
    losses = {seed: statistics.fmean(ending.loss for ending in found) for seed, found in by_seed.items()}
    differences = [losses[seed] - plain[seed] for seed in plain]
    return {
        "loss": statistics.fmean(losses.values()),
        "spread": spread(list(losses.values())),
        "kl": statistics.fmean(ending.kl for ending in endings),
        "size": statistics.fmean(ending.size for ending in endings),
        "steps": statistics.fmean(ending.steps for ending in endings),
        "difference": statistics.fmean(differences),
        "standard_error": spread(differences) / len(differences) ** 0.5,
        "differences": differences,
        "actions": Counter(" ".join(ending.actions) for ending in endings),
    }


def curve(chains: Sequence[Sequence[Ending]]) -> list[dict[str, Any]]:
    """Mean loss of every `BIN` runs of the chains; the spread is that of the chains' means."""
    points = []
    for start in range(0, len(chains[0]), BIN):
        means = [statistics.fmean(ending.loss for ending in chain[start : start + BIN]) for chain in chains]
        runs = f"{start + 1} to {min(start + BIN, len(chains[0]))}"
        points.append({"runs": runs, "loss": statistics.fmean(means), "spread": spread(means)})
    return points


def figures(model: str, options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Of one model."""
    learnt = list(pool.map(learn, [(model, chain, options) for chain in range(options.chains)]))
    judged: dict[str, list[str | None]] = {"plain": [None], "rule": [None], "learned": [left for _, left in learnt]}
    tasks = [
        (model, arm, seed, known, options) for seed in range(options.seeds) for arm in ARMS for known in judged[arm]
    ]
    endings = list(pool.map(judge, tasks))
    of_arm = {arm: [ending for task, ending in zip(tasks, endings, strict=True) if task[1] == arm] for arm in ARMS}
    plain = {ending.seed: ending.loss for ending in of_arm["plain"]}
    chains = [endings for endings, _ in learnt]
    return {
        "dense_loss": endings[0].dense,
        **{arm: summary(of_arm[arm], plain) for arm in ARMS},
        "curve": curve(chains),
        "chains": [[asdict(ending) for ending in chain] for chain in chains],
    }


def chart(found: dict[str, Any], options: argparse.Namespace) -> alt.HConcatChart:
    """A panel per model: the curve with its spread, and as lines what the other arms end with."""
    return styled(
        alt.hconcat(*(panel(model, of_model) for model, of_model in found.items()), spacing=36),
        title="A learned controller from job to job",
        subtitle=f"mean of {options.chains} chains ± standard deviation over them, still exploring; "
        f"lines: mean of {options.seeds} other seeds",
    )


def panel(model: str, found: dict[str, Any]) -> alt.LayerChart:
    """Of one model."""
    points = [
        {**point, "low": point["loss"] - point["spread"], "high": point["loss"] + point["spread"]}
        for point in found["curve"]
    ]
    levels = [{"arm": name, "loss": found[arm]["loss"]} for arm, name in ARMS.items()]
    order = [point["runs"] for point in found["curve"]]
    x = alt.X("runs:O", title="runs of a chain", sort=order, axis=alt.Axis(labelAngle=0))
    y = alt.Y("loss:Q", title="held-out loss at the end (nats per token)", scale=alt.Scale(zero=False))
    band = alt.Chart(values(points)).mark_area(opacity=0.2, color=BLUE).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    line = alt.Chart(values(points)).mark_line(color=BLUE, point=alt.OverlayMarkDef(color=BLUE)).encode(x=x, y=y)
    scale = alt.Scale(domain=list(ARMS.values()), range=[VERMILLION, GREEN, BLUE])
    colour = alt.Color("arm:N", title=None, scale=scale)
    dash = alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=scale.domain, range=[[1, 0], [6, 3], [2, 2]]))
    lines = alt.Chart(values(levels)).mark_rule(strokeWidth=1.5).encode(y=y, color=colour, strokeDash=dash)
    return layered(band, line, lines).properties(title=model, width=300, height=220)


def write(picture: alt.HConcatChart, file: Path) -> None:
    """As PNG."""
    png = vl_convert.vegalite_to_png(picture.to_dict(), vl_version=VEGA_LITE, allowed_base_urls=[], scale=SCALE)
    file.write_bytes(png)


def show(model: str, found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print a table of the arms and one of the curve."""
    title = f"{model}: dense {found['dense_loss']:.4f}, {options.sparsity:.0%} of the groups cut, {options.seeds} seeds"
    table = Table("", "loss", "± over seeds", "− plain", "KL", "parameters", "steps", "actions", title=title)
    for arm in ARMS:
        row = found[arm]
        taken = "\n".join(f"{count} × {what}" for what, count in row["actions"].most_common(3))
        difference = f"{row['difference']:+.4f} ± {row['standard_error']:.4f}"
        numbers = (f"{row['loss']:.4f}", f"{row['spread']:.4f}", difference, f"{row['kl']:.4f}")
        table.add_row(arm, *numbers, f"{row['size']:,.0f}", f"{row['steps']:.0f}", taken)
    Console().print(table)
    learning = Table("runs", "loss", "± over chains", title=f"{model}: {options.chains} chains that learn")
    for point in found["curve"]:
        learning.add_row(point["runs"], f"{point['loss']:.4f}", f"{point['spread']:.4f}")
    Console().print(learning)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, help="those of ../shared, or else gpt2, which is built in"
    )
    parser.add_argument("--chains", type=int, default=3)
    parser.add_argument("--runs", type=int, default=30, help="jobs in a chain")
    parser.add_argument("--seeds", type=int, default=4, help="on which the arms are judged in the end")
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--cycles", type=int, default=4)
    parser.add_argument("--steps", type=int, default=80, help="optimiser steps that a run may take, in all")
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--calibration-sequences", type=int, default=32)
    parser.add_argument("--evaluation-tokens", type=int, default=8192)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--chart", type=Path, help="draw the learning curves into this PNG")
    return parser.parse_args()


def main() -> None:
    """Print two tables per model; with --json also one JSON object as the last line."""
    options = parse()
    models = options.models or (MODELS[:2] if SHARED.is_dir() else ["gpt2"])
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = {model: figures(model, options, pool) for model in models}
    for model, of_model in found.items():
        show(model, of_model, options)
    if options.chart:
        write(chart(found, options), options.chart)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
