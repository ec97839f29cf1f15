"""What scoring, selection and repair cost as the model grows, in forward passes over the calibration set.

Llamas of random weights and random windows: costs depend on shapes, not on what a model has learnt. Every piece of
work has a fresh process that times the plain forward pass (logits included) before and after the work, so that a busy
machine hits both alike; a ratio is the median over rounds, `spread` the width of their range. Beside it stands the same
ratio of processor time, which other processes on the machine hardly touch. 40 % of the groups go,
of attention alone or of attention and MLP, at once, with `allocation: global`.

- `closed_form_forwards`: `obs` on attention, from statistics to the refitted model (`least_squares`).
- `closed_form_mlp_forwards`: the same on attention and MLP neurons.
- `gradient_forwards`: how much more `taylor` or `fisher`, the dearer, takes for the same on both units.

Memory is how far the work lifts the peak of the process's resident set (on a GPU: of the allocator) above what it was
with the models loaded. Beside it: what a forward pass adds in the same way, the weights, and the activations, which are
what autograd keeps for the weights' gradients in one batch of an ordinary training step.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sentinel.data.loaders.windows import token_batches
from sentinel.models.evaluation import count_parameters
from sentinel.models.families import family_of
from sentinel.prune_spec import Prune
from sentinel.pruning.pruning_module import PruningModule
from sentinel.utils.metrics import next_token_losses

VOCABULARY = 8192
SPARSITY = 0.4
SEARCH_EVALUATIONS = 8
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama: layers, hidden size, KV heads (two query heads each) and neurons."""

    layers: int
    hidden: int
    kv_heads: int
    neurons: int


SIZES = {
    "12M": Shape(layers=6, hidden=320, kv_heads=5, neurons=896),
    "32M": Shape(layers=8, hidden=512, kv_heads=8, neurons=1408),
    "88M": Shape(layers=12, hidden=768, kv_heads=6, neurons=1920),
    "1.3B": Shape(layers=24, hidden=2048, kv_heads=16, neurons=5632),
    "3B": Shape(layers=32, hidden=2560, kv_heads=20, neurons=7168),
}
# Name → the part of the spec that says it.
WORK: dict[str, dict[str, object]] = {
    "obs, attention": {"strategy": "obs", "units": ["attention"]},
    "obs, attention + MLP": {"strategy": "obs", "units": ["attention", "mlp"]},
    "taylor, attention + MLP": {"strategy": "taylor", "units": ["attention", "mlp"]},
    "fisher, attention + MLP": {"strategy": "fisher", "units": ["attention", "mlp"]},
    "obs, attention, residual": {
        "strategy": "obs",
        "units": ["attention"],
        "compensation": "residual_least_squares",
    },
    "obs, attention, search": {
        "strategy": "obs",
        "units": ["attention"],
        "search": {"evaluations": SEARCH_EVALUATIONS, "windows": 4},
    },
}
PROMISED = list(WORK)[:4]
CLOSED_FORM, CLOSED_FORM_MLP, *GRADIENT = PROMISED


def model_of(shape: Shape, device: str) -> PreTrainedModel:
    """Random weights, frozen, the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.neurons,
        num_hidden_layers=shape.layers,
        num_attention_heads=2 * shape.kv_heads,
        num_key_value_heads=shape.kv_heads,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)


def windows_of(options: argparse.Namespace) -> torch.Tensor:
    """Random token ids, (windows, sequence_length)."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (options.windows, options.sequence_length), generator=generator)
    return tokens.to(options.device)


@torch.no_grad()
def forward(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """One pass over the calibration set, logits included."""
    for batch in token_batches(windows):
        model(input_ids=batch, use_cache=False)


def work(name: str, model: PreTrainedModel, windows: torch.Tensor) -> Iterator[None]:
    """Score and select, pause, then cut and repair; `model` is cut in place."""
    usual = {"allocation": "global", "compensation": "least_squares", "search": None}
    prune = Prune.model_validate({"target": {"sparsity": SPARSITY}, **usual, **WORK[name]})
    module = PruningModule(model, family_of("llama"))
    calibration = module.calibration(windows, prune, seed=0)
    selection = module.select(calibration, prune)
    yield
    module.cut(calibration, selection.cut, compensation=prune.compensation)


def timed(call: Callable[[], object]) -> np.ndarray:
    """Seconds on the wall, and seconds that the process was computing, (2,)."""
    start = clocks()
    call()
    return clocks() - start


def clocks() -> np.ndarray:
    """Seconds on the wall, and seconds that the process has computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def measure_work(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Forward passes that selection and the whole work take (medians, spread of the latter), and bytes of memory."""
    dense, windows = model_of(SIZES[options.sizes[0]], options.device), windows_of(options)
    forward(dense, windows[:1])
    models = [copy.deepcopy(dense)]
    loaded = peak_bytes(options.device)
    selecting, whole, select_peak, peak = [], [], 0, 0
    for _ in range(options.rounds):
        model = models.pop() if models else copy.deepcopy(dense)
        steps = work(name, model, windows)
        before = timed(lambda: forward(dense, windows)) if peak else None
        first = timed(lambda steps=steps: next(steps))
        select_peak = select_peak or peak_bytes(options.device) - loaded
        second = timed(lambda steps=steps: list(steps))
        peak = peak or peak_bytes(options.device) - loaded
        after = timed(lambda: forward(dense, windows))
        one = after if before is None else (before + after) / 2
        selecting.append(first / one)
        whole.append((first + second) / one)
    return {
        "select_forwards": np.median(selecting, axis=0)[0],
        "forwards": np.median(whole, axis=0)[0],
        "spread": np.ptp(whole, axis=0)[0],
        "cpu_select_forwards": np.median(selecting, axis=0)[1],
        "cpu_forwards": np.median(whole, axis=0)[1],
        "select_peak": select_peak,
        "peak": peak,
    }


def activations(model: PreTrainedModel, windows: torch.Tensor) -> int:
    """Bytes that autograd keeps for one batch of training, the weights themselves not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.requires_grad_(requires_grad=True)
    batch = next(iter(token_batches(windows)))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = next_token_losses(model(input_ids=batch, use_cache=False).logits, batch).mean()
    model.requires_grad_(requires_grad=False)
    assert loss.requires_grad  # noqa: S101 - it is alive up to here, and so is what it keeps
    return sum(kept.values())


def peak_bytes(device: str) -> int:
    """Most memory that this process has held so far."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()


def measure_here(options: argparse.Namespace) -> dict[str, float]:
    """One size and one piece of work, in this process, which has done nothing else."""
    if options.only in WORK:
        return measure_work(options.only, options)
    model, windows = model_of(SIZES[options.sizes[0]], options.device), windows_of(options)
    if options.only == "activations":
        return {"parameters": count_parameters(model), "activations": activations(model, windows)}
    forward(model, windows[:1])
    loaded = peak_bytes(options.device)
    forward(model, windows)
    return {"forward": peak_bytes(options.device) - loaded}


def measure_apart(name: str, size: str, options: argparse.Namespace) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--only", name, "--sizes", size, "--device", options.device]
    for option in ("windows", "sequence_length", "threads", "rounds"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return measured


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per size and piece of work."""
    for size in options.sizes:
        shared = {**measure_apart("activations", size, options), **measure_apart("forward", size, options)}
        # The dearer ways are no promise; the first size tells their cost.
        for name in WORK if size == options.sizes[0] else PROMISED:
            yield {"size": size, "work": name, **shared, **measure_apart(name, size, options)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["12M", "32M", "88M"])
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.only:
        print(json.dumps(measure_here(options)))
        return
    title = f"cost in forward passes over {options.windows} windows of {options.sequence_length} tokens"
    memory = ("select_peak", "peak", "forward", "activations")
    table = Table(
        "model",
        "work",
        "select",
        "in all",
        "processor",
        *(f"{name.replace('_', ' ')} MiB" for name in memory),
        "weights MiB",
        title=title,
    )
    found = []
    for row in rows(options):
        found.append(row)
        whole = f"{row['forwards']:.2f} ± {row['spread'] / 2:.2f}"
        print(f"{row['size']}, {row['work']}: {whole} forward passes", file=sys.stderr, flush=True)
        numbers = [row[name] / MIB for name in memory] + [4 * row["parameters"] / MIB]
        table.add_row(
            row["size"],
            row["work"],
            f"{row['select_forwards']:.2f}",
            whole,
            f"{row['cpu_forwards']:.2f}",
            *(f"{number:.0f}" for number in numbers),
        )
    Console(width=140).print(table)
    if options.json:
        print(json.dumps({**summary(found), "rows": found}))


def summary(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The three costs that are promised, by size."""
    sizes = list(dict.fromkeys(row["size"] for row in found))
    forwards = {(row["size"], row["work"]): row["forwards"] for row in found}
    dearest = [max(forwards[size, name] for name in GRADIENT) for size in sizes]
    closed_form_mlp = [forwards[size, CLOSED_FORM_MLP] for size in sizes]
    return {
        "sizes": list(dict.fromkeys(row["parameters"] for row in found)),
        "closed_form_forwards": [forwards[size, CLOSED_FORM] for size in sizes],
        "closed_form_mlp_forwards": closed_form_mlp,
        "gradient_forwards": [whole - closed for whole, closed in zip(dearest, closed_form_mlp, strict=True)],
    }


if __name__ == "__main__":
    main()
