"""Claim: on JAX, 64 masks in one vmapped call take at most a third of the time of 64 calls of one mask each.

That holds where one forward pass alone does not keep the machine busy: a Llama of 57 thousand parameters, a window of
8 tokens. Larger models and longer windows show how the gain shrinks as arithmetic takes over. Weights are random: speed
depends on shapes only. Both ways are compiled and give each mask's next-token loss; only what they are mapped over
differs. They take turns in one process, so that a busy machine hits both alike; `speedup` is the median over rounds of
a round's ratio on the wall, `processor_speedup` the same of processor time, which other processes hardly touch.

Beside it, how far the built-in models are from torch: the largest difference of a logit, and of an importance relative
to the largest of its site.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sentinel.models.loaders.load import load_model
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.functional.architecture import Params, Shapes
from sentinel.pruning.functional.llama import Llama
from sentinel.pruning.pruning_module_jax import PruningModule
from sentinel.pruning.strategies import STRATEGIES
from sentinel.spec import PathModel

BUILTIN = Path(__file__).resolve().parents[1] / "sentinel/models/builtin"
# By hidden size: 57 and 902 thousand parameters.
SIZES = {32: 256, 128: 1024}
LAYERS = 4
CLAIMED = (32, 8)  # hidden size, tokens
MASKS = 64
SPARSITY = 0.2
PARITY_WINDOWS = (8, 64)


def random_llama(hidden: int, vocabulary: int) -> PruningModule:
    """Four groups of two query heads in each layer, and 9/4 as many neurons as features."""
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "vocab_size": vocabulary,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    model, random = Llama.from_config(config), np.random.default_rng(0)

    def draw(shapes: Shapes) -> dict[str, jax.Array]:
        return {name: jnp.asarray(0.1 * random.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}

    layers = tuple(draw(model.layer_shapes(4, hidden * 9 // 4)) for _ in range(LAYERS))
    return PruningModule(model=model, params=Params(layers, draw(model.other_shapes())))


def loss_of_mask(module: PruningModule) -> Callable[..., jax.Array]:
    """From weights, gates (gates,) and one window (tokens,) to its loss; pure, not compiled."""

    def loss(params: Any, gates: jax.Array, tokens: jax.Array) -> jax.Array:  # noqa: ANN401 - any weights
        log_q = jax.nn.log_softmax(module.model.logits(params, gates, tokens)[:-1])
        return -jnp.take_along_axis(log_q, tokens[1:, None], axis=-1).mean()

    return loss


def clocks() -> np.ndarray:
    """Seconds on the wall, and seconds that the process has computed."""
    return np.array([time.perf_counter(), time.process_time()])


def timed(call: Callable[[], object]) -> np.ndarray:
    """Both, of one call."""
    start = clocks()
    jax.block_until_ready(call())
    return clocks() - start


def speed(module: PruningModule, tokens: int, rounds: int) -> dict[str, float]:
    """One vmapped call against one call per mask, on a window of so many tokens."""
    random = np.random.default_rng(0)
    window = jnp.asarray(random.integers(module.model.vocabulary, size=tokens))
    masks = jnp.asarray(random.random((MASKS, len(module.gates()))) >= SPARSITY, dtype=jnp.float32)
    loss, rows = loss_of_mask(module), list(masks)
    one, many = jax.jit(loss), jax.jit(jax.vmap(loss, in_axes=(None, 0, None)))
    separately = jnp.stack([one(module.params, row, window) for row in rows])
    difference = jnp.abs(many(module.params, masks, window) - separately).max()
    found = []
    for _ in range(rounds):
        together = timed(lambda: many(module.params, masks, window))
        found.append([together, timed(lambda: [one(module.params, row, window) for row in rows])])
    times = np.array(found)  # rounds, together or apart, wall or processor
    ratios = times[:, 1] / times[:, 0]
    return {
        "tokens": tokens,
        "together_ms": 1e3 * float(np.median(times[:, 0, 0])),
        "apart_ms": 1e3 * float(np.median(times[:, 1, 0])),
        "speedup": float(np.median(ratios[:, 0])),
        "speedup_lowest": float(ratios[:, 0].min()),
        "speedup_highest": float(ratios[:, 0].max()),
        "processor_speedup": float(np.median(ratios[:, 1])),
        "largest_difference": float(difference),
    }


def parity(folder: Path) -> dict[str, float]:
    """Largest differences from torch on windows of random tokens."""
    module = PruningModule.load(folder)
    model, _, family = load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    windows = torch.randint(model.config.vocab_size, PARITY_WINDOWS, generator=torch.Generator().manual_seed(0))
    model.requires_grad_(requires_grad=False)
    logits = model(input_ids=windows, use_cache=False).logits.numpy()
    found = {"logits": float(np.abs(module.logits(windows) - logits).max())}
    for strategy, units in (("taylor", ("attention", "mlp")), ("ablation", ("attention",))):
        calibration = Calibration(model=model, family=family, units=units, windows=windows, seed=0)
        theirs = [ranking.importance().numpy() for ranking in STRATEGIES[strategy](calibration)]
        ours = module.importance(strategy, windows, units=units)
        found[strategy] = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs, strict=True))
    return found


def main() -> None:
    """Print tables; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 8, 16, 32])
    options = parser.parse_args()
    table = Table("hidden", "tokens", "together, ms", "apart, ms", "speedup", "processor", title=f"{MASKS} masks")
    rows = []
    for hidden, vocabulary in SIZES.items():
        module = random_llama(hidden, vocabulary)
        for tokens in options.tokens:
            row = {"hidden": hidden, **speed(module, tokens, options.rounds)}
            rows.append(row)
            spread = f"{row['speedup']:.1f} ({row['speedup_lowest']:.1f} to {row['speedup_highest']:.1f})"
            times = (f"{row[name]:.1f}" for name in ("together_ms", "apart_ms"))
            table.add_row(str(hidden), str(tokens), *times, spread, f"{row['processor_speedup']:.1f}")
    console = Console()
    console.print(table)
    differences = Table("model", "logits", "taylor", "ablation", title="largest differences from torch")
    parities = {folder.name: parity(folder) for folder in sorted(BUILTIN.iterdir())}
    for name, found in parities.items():
        differences.add_row(name, *(f"{value:.1e}" for value in found.values()))
    console.print(differences)
    if options.json:
        claimed = {
            key: value for row in rows if (row["hidden"], row["tokens"]) == CLAIMED for key, value in row.items()
        }
        print(json.dumps({**claimed, "parity": parities, "rows": rows}))


if __name__ == "__main__":
    main()
