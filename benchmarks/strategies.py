"""What each strategy costs in held-out loss before any healing, with and without compensation, beside random ones.

Prunes the built-in models once, uniformly, on 64 calibration windows, and measures the rise of the loss in nats per
token on text that calibration has not seen. `random` is the control at equal count, over several seeds.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from sentinel import experiment
from sentinel.events import Event
from sentinel.spec import StrategyName, parse_spec

MODELS = ("gpt2", "llama")
SPARSITIES = (0.25, 0.5)
RANDOM_SEEDS = (0, 1, 2, 3)


class _Silent:
    def emit(self, event: Event) -> None:
        """Say nothing."""


def loss_rise(model: str, strategy: str, sparsity: float, *, compensation: str | None, seed: int) -> float:
    """Pruned minus dense loss, nats per token."""
    spec = parse_spec(
        {
            "model": f"builtin/{model}",
            "prune": {
                "strategy": strategy,
                "target": {"sparsity": sparsity},
                "compensation": compensation,
                "calibration_sequences": 64,
            },
            "heal": None,
            "evaluate": {"tokens": 32_768, "prompts": []},
            "seed": seed,
        }
    )
    with tempfile.TemporaryDirectory() as output:
        result = experiment.run(spec, output=Path(output), reporter=_Silent())
    return result.pruned.loss - result.dense.loss


def rows() -> Iterator[dict[str, object]]:
    """One row per model, sparsity and strategy; `spread` is the standard deviation over seeds."""
    for model in MODELS:
        for sparsity in SPARSITIES:
            for strategy in get_args(StrategyName):
                seeds = RANDOM_SEEDS if strategy == "random" else (0,)
                row: dict[str, object] = {"model": model, "sparsity": sparsity, "strategy": strategy}
                for name, compensation in (("plain", None), ("least_squares", "least_squares")):
                    rises = [loss_rise(model, strategy, sparsity, compensation=compensation, seed=s) for s in seeds]
                    row[name] = statistics.mean(rises)
                    row[f"{name}_spread"] = statistics.pstdev(rises)
                yield row


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = Table("model", "sparsity", "strategy", "plain", "least squares", title="rise of the loss, nats/token")
    found = []
    for row in rows():
        found.append(row)
        cells = [f"{row[name]:.3f} ± {row[f'{name}_spread']:.3f}" for name in ("plain", "least_squares")]
        table.add_row(str(row["model"]), f"{row['sparsity']:.0%}", str(row["strategy"]), *cells)
    Console().print(table)
    if options.json:
        print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
