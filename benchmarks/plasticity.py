"""Question: do groups that may come back make a better model than cuts that are final, at the same size and training?

Half of the attention groups and half of the MLP neurons go. Every arm ends with as many groups and takes as many
optimiser steps in all; those of an exchange's copy, which the run only compares with, count for its arm, too:

- one_shot: one cut, then all steps;
- iterative: several cuts by the cubic schedule, the steps between them;
- grow: the same, and after every healing but the last an exchange, by each growth strategy;
- controller: the iterative arm, but a controller by rule decides about its cycles.

`loss` is in nats per token and `kl` is KL(dense ‖ model) on text that nothing was chosen or learnt on: means over the
seeds, which change the calibration's draws, the order of the text and whatever a strategy draws. `spread` is the
standard deviation over the seeds of the loss, `size` the parameters that are left.

Models and text are those of ../shared; without them there is nothing to measure.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from sentinel.events import Event
from sentinel.experiment import run
from sentinel.grow_spec import GrowthName
from sentinel.spec import parse_spec

SHARED = Path(__file__).resolve().parents[2] / "shared"
# With the learning rate at which the iterative arm ends lowest, of those in docs/experiments.md.
MODELS = {"stories260K": 2e-3, "babyllama-tok361": 2e-4}
GROWTHS = tuple(name for name in get_args(GrowthName) if name != "entropy_gap")  # which knows attention only
ARMS = ("one_shot", "iterative", *GROWTHS, "controller")


class Quiet:
    """Listens to nothing."""

    def emit(self, event: Event) -> None:
        """As an experiment calls it."""


def document(model: str, arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The spec of one run."""
    cycles = 1 if arm == "one_shot" else options.cycles
    exchanges = (cycles - 1) * 2 * options.growth_steps if arm in GROWTHS else 0
    steps = (options.steps - exchanges) // cycles
    return {
        "model": {"source": "path", "path": str(SHARED / "models" / model)},
        "data": {
            "source": "path",
            "train": str(SHARED / "text" / "tinystories_train_2M.txt"),
            "sequence_length": options.sequence_length,
        },
        "prune": {
            "units": ["attention", "mlp"],
            "target": {"sparsity": options.sparsity},
            "cycles": cycles,
            "compensation": options.compensation,
            "search": {"evaluations": options.evaluations} if options.evaluations else None,
            "mlp_block": 4,
            "calibration_sequences": options.calibration_sequences,
        },
        "heal": {
            "steps": steps,
            "batch_tokens": options.batch_tokens,
            "learning_rate": options.learning_rate or MODELS[model],
            # Text is kept out of healing where something is decided by it: here too, for all arms to see the same.
            "evaluate_every": None if arm in (*GROWTHS, "controller") else steps,
        },
        "grow": {"strategy": arm, "steps": options.growth_steps, "fraction": options.fraction}
        if arm in GROWTHS
        else None,
        "controller": {"kind": "rule"} if arm == "controller" else None,
        "evaluate": {"tokens": options.evaluation_tokens, "prompts": []},
        "device": "cpu",
        "seed": seed,
    }


def measure(task: tuple[str, str, int, argparse.Namespace]) -> dict[str, Any]:
    """One run, in a process of its own with one thread."""
    model, arm, seed, options = task
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = parse_spec(document(model, arm, seed, options))
        result = run(spec, output=Path(folder), reporter=Quiet(), save_interval_s=3600)
    growths = [record.growth for record in result.cycles if record.growth]
    accepted = sum(growth.accepted for growth in growths)
    print(f"{model}, {arm}, seed {seed}: loss {result.pruned.loss:.4f}, {accepted} of {len(growths)} stood", flush=True)
    return {
        "model": model,
        "arm": arm,
        "loss": result.pruned.loss,
        "kl": result.pruned.kl_to_dense,
        "size": result.pruned.parameters,
        "dense": result.dense.loss,
        "accepted": accepted,
        "exchanges": len(growths),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one arm over its seeds."""
    losses = [run["loss"] for run in runs]
    return {
        "loss": statistics.fmean(losses),
        "kl": statistics.fmean(run["kl"] for run in runs),
        "spread": statistics.stdev(losses) if len(losses) > 1 else 0.0,
        "size": statistics.fmean(run["size"] for run in runs),
        "accepted": sum(run["accepted"] for run in runs),
        "exchanges": sum(run["exchanges"] for run in runs),
    }


def figures(runs: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Of one model."""
    of_model = [run for run in runs if run["model"] == model]
    arms = {arm: summary(found) for arm in ARMS if (found := [run for run in of_model if run["arm"] == arm])}
    grow = {arm: arms.pop(arm) for arm in GROWTHS if arm in arms}
    return {"dense_loss": of_model[0]["dense"], **arms, "grow": grow}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--cycles", type=int, default=4)
    parser.add_argument("--steps", type=int, default=160, help="optimiser steps of a run, in all")
    parser.add_argument("--growth-steps", type=int, default=4, help="of one exchange; its copy takes as many")
    parser.add_argument("--fraction", type=float, default=0.1, help="of the dense groups that an exchange grows")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, help="for all models; default: each its own")
    parser.add_argument("--compensation", default="residual_least_squares")
    parser.add_argument("--evaluations", type=int, default=0, help="of the search, per cut; 0 for none")
    parser.add_argument("--calibration-sequences", type=int, default=64)
    parser.add_argument("--evaluation-tokens", type=int, default=30_000)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Print a table per model; with --json also one JSON object as the last line."""
    options = parse()
    if not SHARED.is_dir():
        raise SystemExit("There is no ../shared with the models and the text.")
    tasks = [(model, arm, s, options) for model in options.models for s in range(options.seeds) for arm in options.arms]
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(measure, tasks))
    found = {model: figures(runs, model) for model in options.models}
    for model, of_model in found.items():
        title = f"{model}: dense {of_model['dense_loss']:.4f}, {options.steps} steps of {options.batch_tokens} tokens"
        table = Table("", "loss", "± over seeds", "KL", "parameters", "exchanges stood", title=title)
        arms = {name: row for name, row in of_model.items() if isinstance(row, dict) and name != "grow"}
        arms |= of_model["grow"]
        for name, row in arms.items():
            stood = f"{row['accepted']} of {row['exchanges']}"
            size = f"{row['size']:,.0f}"
            table.add_row(name, f"{row['loss']:.4f}", f"{row['spread']:.4f}", f"{row['kl']:.4f}", size, stood)
        Console().print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
