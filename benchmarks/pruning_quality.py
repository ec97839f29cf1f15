"""How much loss each way of pruning costs before any training, ours beside other libraries and published recipes.

Cells: model × unit × sparsity. Every row of a cell removes the same number of groups from the same model, on the same
calibration windows, and is measured on the same held-out windows. A seed draws other calibration text; `spread` is the
standard deviation over seeds. Ratios are taken to the best peer of the cell.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peers import Importance, torch_pruning_model
from published import cut_as_flap
from rich.console import Console
from rich.table import Table

from sentinel.data.loaders.documents import load_documents
from sentinel.data.loaders.windows import pack_windows
from sentinel.data_spec import BuiltinData, PathData
from sentinel.models.evaluation import mean_loss
from sentinel.models.loaders.load import LoadedModel, load_model
from sentinel.prune_spec import Prune, ScoreName
from sentinel.pruning.pruning_module import PruningModule, Selection
from sentinel.spec import BuiltinModel, ModelSource, PathModel

Unit = Literal["attention", "mlp"]

# Small real models and a text for them, beside the checkout where there are any; else the built-in model is measured.
SHARED = Path(__file__).parents[2] / "shared"
REAL_MODELS = ("stories260K", "babyllama-tok361")
REAL_TEXT = "tinystories_train_2M.txt"
CELLS: tuple[tuple[Unit, float], ...] = (("attention", 0.25), ("attention", 0.5), ("mlp", 0.2), ("mlp", 0.4))
# Neurons go in multiples of this many, so that every method can be given the same number.
MLP_BLOCK = 4
# One document in so many is held out; corpora change along their length, so every tenth rather than the last tenth.
HELD_OUT_EVERY = 10
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one process needs to know."""

    model: str
    text: str | None
    sequence_length: int
    calibration_windows: int
    evaluation_windows: int
    strategies: tuple[ScoreName, ...]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model with calibration and held-out windows, and what it loses uncut."""

    loaded: LoadedModel
    calibration: torch.Tensor
    held_out: torch.Tensor
    dense_loss: float
    seed: int
    selections: dict[str, Selection] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: how a copy of the model is cut."""

    name: str
    peer: bool
    compensation: str | None
    cut: Callable[[Bench, Unit, float], torch.nn.Module]


def prepare(options: Options, seed: int) -> Bench:
    """Load the model and split the text; the seed draws the calibration windows, the held-out ones stay."""
    loaded = load_model(_source(options.model), device="cpu", dtype="float32")
    loaded.model.requires_grad_(requires_grad=False)
    documents = load_documents(PathData(train=options.text) if options.text else BuiltinData(), allowed_roots=None)
    texts = [*documents.train, *documents.evaluation]
    held_out = texts[::HELD_OUT_EVERY]
    calibration = [text for index, text in enumerate(texts) if index % HELD_OUT_EVERY]
    windows = [
        pack_windows(_shuffled(some, draw), loaded.tokenizer, sequence_length=options.sequence_length, limit=limit)
        for some, draw, limit in (
            (calibration, seed, options.calibration_windows),
            (held_out, 0, options.evaluation_windows),
        )
    ]
    dense_loss = mean_loss(loaded.model, windows[1])
    return Bench(loaded=loaded, calibration=windows[0], held_out=windows[1], dense_loss=dense_loss, seed=seed)


def _shuffled(texts: Sequence[str], seed: int) -> list[str]:
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    return [texts[index] for index in order]


def _source(model: str) -> ModelSource:
    if model.startswith("builtin/"):
        return BuiltinModel.model_validate({"id": model.removeprefix("builtin/")})
    return PathModel(path=model)


def cut_by_spec(bench: Bench, unit: Unit, sparsity: float, **section: Any) -> torch.nn.Module:  # noqa: ANN401 - fields of Prune
    """A copy cut as a spec's `prune` section says."""
    prune = Prune.model_validate({"units": [unit], "target": {"sparsity": sparsity}, "mlp_block": MLP_BLOCK, **section})
    module = PruningModule(copy.deepcopy(bench.loaded.model), bench.loaded.family)
    calibration = module.calibration(bench.calibration, prune, seed=bench.seed)
    # What is selected does not depend on the repair unless a search looks at it.
    key = prune.model_dump_json(exclude={"compensation"} if prune.search is None else set())
    if key not in bench.selections:
        bench.selections[key] = module.select(calibration, prune)
    module.cut(calibration, bench.selections[key].cut, compensation=prune.compensation)
    return module.model


def methods(options: Options, unit: Unit) -> Iterator[Method]:
    """Every row of a cell, the peers first."""
    for importance in get_args(Importance):
        for everywhere in (False, True):
            name = f"torch-pruning {importance}, {'global' if everywhere else 'uniform'}"
            yield Method(name=name, peer=True, compensation=None, cut=_torch_pruning(importance, everywhere=everywhere))
    yield Method(name="Wanda-sp", peer=True, compensation=None, cut=_by_spec("wanda", "uniform", None))
    yield Method(
        name="FLAP",
        peer=True,
        compensation="bias",
        cut=lambda bench, unit, sparsity: cut_as_flap(
            copy.deepcopy(bench.loaded.model),
            bench.loaded.family,
            bench.calibration,
            unit,
            removed(bench, unit, sparsity),
        ),
    )
    for allocation in ("uniform", "global"):
        cut = _by_spec("taylor", allocation, None)
        yield Method(name=f"LLM-Pruner, {allocation}", peer=True, compensation=None, cut=cut)
    for strategy in options.strategies:
        if strategy != "entropy" or unit == "attention":
            for compensation in (None, "least_squares"):
                cut = _by_spec(strategy, "global", compensation)
                yield Method(name=strategy, peer=False, compensation=compensation, cut=cut)
    yield Method(name=DEFAULT, peer=False, compensation=Prune.model_fields["compensation"].default, cut=cut_by_spec)


def _by_spec(
    strategy: str, allocation: str, compensation: str | None
) -> Callable[[Bench, Unit, float], torch.nn.Module]:
    section = {"strategy": strategy, "allocation": allocation, "compensation": compensation, "search": None}
    return lambda bench, unit, sparsity: cut_by_spec(bench, unit, sparsity, **section)


def _torch_pruning(importance: Importance, *, everywhere: bool) -> Callable[[Bench, Unit, float], torch.nn.Module]:
    def cut(bench: Bench, unit: Unit, sparsity: float) -> torch.nn.Module:
        total = sum(bench.loaded.family.counts(bench.loaded.model, unit))
        return torch_pruning_model(
            bench.loaded.model,
            bench.calibration,
            unit=unit,
            sparsity=removed(bench, unit, sparsity) / total,
            importance=importance,
            global_pruning=everywhere,
        )

    return cut


def removed(bench: Bench, unit: Unit, sparsity: float) -> int:
    """How many groups our own methods remove, which is what the peers are given too."""
    prune = Prune.model_validate({"units": [unit], "target": {"sparsity": sparsity}, "mlp_block": MLP_BLOCK})
    module = PruningModule(bench.loaded.model, bench.loaded.family)
    left = module.plan(module.calibration(bench.calibration, prune, seed=0), prune)
    return sum(module.dense_counts[unit]) - sum(left[unit])


def run_cell(options: Options, unit: Unit, sparsity: float, seed: int) -> list[dict[str, Any]]:
    """Measure every row of a cell for one seed; one thread, as cells run side by side."""
    torch.set_num_threads(1)
    bench = prepare(options, seed)
    rows = []
    for method in methods(options, unit):
        start = time.perf_counter()
        increase, failure = None, None
        try:
            increase = mean_loss(method.cut(bench, unit, sparsity), bench.held_out) - bench.dense_loss
        except RuntimeError as error:  # torch-pruning gives up on some budgets; the row says so
            failure = str(error)
        seconds = time.perf_counter() - start
        rows.append({"name": method.name, "peer": method.peer, "compensation": method.compensation,
                     "increase": increase, "failure": failure, "seconds": seconds})  # fmt: skip
    return rows


def summarise(options: Options, unit: Unit, sparsity: float, seeds: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    """One cell of the result from its rows per seed."""
    rows = []
    for same in zip(*seeds, strict=True):
        found = [row["increase"] for row in same if row["increase"] is not None]
        rows.append(
            {
                "name": same[0]["name"],
                "peer": same[0]["peer"],
                "compensation": same[0]["compensation"],
                "loss_increase": statistics.mean(found) if found else None,
                "spread": statistics.pstdev(found) if found else None,
                "seconds": statistics.mean(row["seconds"] for row in same),
            }
        )
    return {"model": Path(options.model).name, "unit": unit, "sparsity": sparsity, "rows": rows}


def ratio_to_best_peer(cell: dict[str, Any]) -> float:
    """The default's loss increase over that of the best peer."""
    best = min(row["loss_increase"] for row in cell["rows"] if row["peer"] and row["loss_increase"] is not None)
    (default,) = (row["loss_increase"] for row in cell["rows"] if row["name"] == DEFAULT)
    return float(default / best)


def print_tables(cells: Sequence[dict[str, Any]]) -> None:
    """One table: rows × cells."""
    table = Table(title="rise of the held-out loss, nats/token, ± spread over calibration texts")
    table.add_column("")
    for cell in cells:
        table.add_column(f"{cell['model']}\n{cell['unit']} {cell['sparsity']:.0%}", justify="right")
    names = list(dict.fromkeys((row["name"], row["compensation"]) for cell in cells for row in cell["rows"]))
    for name, compensation in names:
        label = name if compensation is None else f"{name} + {compensation}"
        table.add_row(label, *(_entry(cell, name, compensation) for cell in cells))
    table.add_section()
    table.add_row("default / best peer", *(f"{ratio_to_best_peer(cell):.3f}" for cell in cells))
    Console(width=200).print(table)


def _entry(cell: dict[str, Any], name: str, compensation: str | None) -> str:
    for row in cell["rows"]:
        if (row["name"], row["compensation"]) == (name, compensation):
            return (
                f"{row['loss_increase']:.4f} ± {row['spread']:.4f}" if row["loss_increase"] is not None else "refused"
            )
    return ""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="folder of a Llama-like model, or builtin/llama; repeatable")
    parser.add_argument(
        "--text", help="text file to calibrate on and to hold out from; the built-in stories without it"
    )
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--calibration-windows", type=int, default=384)
    parser.add_argument("--evaluation-windows", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--strategies", default=",".join(get_args(ScoreName)), help="of ours, besides the default")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    return parser.parse_args()


def main() -> None:
    """Measure all cells, as many at once as there are cores."""
    arguments = parse()
    models, text = arguments.model, arguments.text
    if not models:
        real = SHARED.is_dir()
        models = [str(SHARED / "models" / name) for name in REAL_MODELS] if real else ["builtin/llama"]
        text = text or (str(SHARED / "text" / REAL_TEXT) if real else None)
    common = {
        "text": text,
        "sequence_length": arguments.sequence_length,
        "calibration_windows": arguments.calibration_windows,
        "evaluation_windows": arguments.evaluation_windows,
        "strategies": tuple(filter(None, arguments.strategies.split(","))),
    }
    runs = [Options(model=model, **common) for model in models]
    cells = measure(runs, arguments.seeds)
    print_tables(cells)
    ratios = [ratio_to_best_peer(cell) for cell in cells]
    prune = Prune.model_validate({"target": {"sparsity": 0.5}}).model_dump(mode="json", exclude={"target", "units"})
    result = {
        "cells": cells,
        "default": prune,
        "mean_ratio_to_best_peer": statistics.mean(ratios),
        "max_ratio_to_best_peer": max(ratios),
        "protocol": asdict(runs[0])
        | {"model": None, "text": Path(text).name if text else "built-in stories", "seeds": arguments.seeds},
    }
    print(
        f"mean {result['mean_ratio_to_best_peer']:.3f}, worst {result['max_ratio_to_best_peer']:.3f} of the best peer"
    )
    if arguments.json:
        print(json.dumps(result))


def measure(runs: Sequence[Options], seeds: int) -> list[dict[str, Any]]:
    """Every cell of every run."""
    tasks = [(options, unit, sparsity) for options in runs for unit, sparsity in CELLS]
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(run_cell, *task, seed): (i, seed) for i, task in enumerate(tasks) for seed in range(seeds)
        }
        for done in as_completed(waiting):
            found[waiting[done]] = done.result()
            print(f"{len(found)} of {len(waiting)} cells measured", file=sys.stderr, flush=True)
            for row in found[waiting[done]]:
                print(f"  {row}", file=sys.stderr, flush=True)
    return [summarise(*task, [found[i, seed] for seed in range(seeds)]) for i, task in enumerate(tasks)]


if __name__ == "__main__":
    main()
