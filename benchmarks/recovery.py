"""Claim: healing wins back most of what a deep cut cost, and by distillation more than by text alone.

Half of the attention groups and two fifths of the MLP neurons go, by the defaults of `prune`. The cut and repaired
model is then healed for some steps, by cross-entropy and by distillation from the dense model; a model of the same
shape with random weights learns the text for as many. Losses and KL(dense ‖ model) are in nats per token on text that
nothing was chosen or learnt on. `recovered_fraction` is the share of the loss that the cut cost, before any repair,
that repair and distillation win back; `recovered_by_healing` is distillation's alone, of what the repair left.

Models and text are those of ../shared; without them there is nothing to measure.
"""

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from sentinel.heal_spec import Heal
from sentinel.inputs import Inputs, load_inputs
from sentinel.models.evaluation import compare
from sentinel.prune_spec import Prune
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.pruning_module import PruningModule
from sentinel.spec import parse_spec

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = ("stories260K", "babyllama-tok361")
SPARSITY = {"attention": 0.5, "mlp": 0.4}


@dataclass(frozen=True)
class Score:
    """A model on the evaluation text."""

    loss: float
    kl: float


class Progress(Observer):
    """Prints a line now and then."""

    def __init__(self, name: str, every: int) -> None:
        self._name, self._every = name, every

    def stepped(self, step: int, loss: float) -> None:
        """As FineTuner calls it."""
        if step % self._every == 0:
            print(f"  {self._name}: step {step}, loss {loss:.4f}", flush=True)

    def noticed(self, text: str) -> None:
        """As FineTuner calls it."""
        print(f"  {self._name}: {text}", flush=True)


def inputs_of(name: str, options: argparse.Namespace) -> Inputs:
    """Model and text, as a spec names them."""
    return load_inputs(
        parse_spec(
            {
                "model": {"source": "path", "path": str(SHARED / "models" / name)},
                "data": {
                    "source": "path",
                    "train": str(SHARED / "text" / "tinystories_train_2M.txt"),
                    "sequence_length": options.sequence_length,
                },
                "prune": prune_of("attention", options).model_dump(exclude_none=True),
                "heal": {"steps": options.steps, "batch_tokens": options.batch_tokens},
                "evaluate": {"tokens": options.evaluation_tokens},
                "device": options.device,
            }
        ),
        allowed_roots=None,
    )


def prune_of(unit: str, options: argparse.Namespace) -> Prune:
    """The defaults."""
    return Prune.model_validate(
        {
            "units": [unit],
            "target": {"sparsity": SPARSITY[unit]},
            "mlp_block": options.mlp_block,
            "calibration_sequences": options.calibration_sequences,
        }
    )


def cut(inputs: Inputs, options: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The model after both cuts, without any repair and with it."""
    module = PruningModule(copy.deepcopy(inputs.dense), inputs.family)
    for unit in SPARSITY:
        prune = prune_of(unit, options)
        calibration = module.calibration(inputs.calibration, prune, seed=options.seed)
        module.cut(calibration, module.select(calibration, prune).cut, compensation=prune.compensation)
    bare = PruningModule(copy.deepcopy(inputs.dense), inputs.family, kept=module.kept)
    return bare.model, module.model


@torch.no_grad()
def with_random_weights(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The same shape before any training."""
    fresh, generator = copy.deepcopy(model), torch.Generator(device=model.device).manual_seed(seed)
    for name, parameter in fresh.named_parameters():
        if parameter.ndim >= 2:
            parameter.normal_(std=fresh.config.initializer_range, generator=generator)
        else:
            parameter.fill_(float(not name.endswith("bias")))
    return fresh


def healed(
    model: PreTrainedModel, inputs: Inputs, options: argparse.Namespace, *, loss: str, rate: float, name: str
) -> Score:
    """The score after so many steps."""
    model = copy.deepcopy(model)
    heal = Heal.model_validate(
        {"loss": loss, "steps": options.steps, "batch_tokens": options.batch_tokens, "learning_rate": rate}
    )
    observer = Progress(name, max(1, options.steps // 4))
    FineTuner(heal=heal, dense=inputs.dense).fine_tune(model, inputs.training, seed=options.seed, observer=observer)
    return score(model, inputs)


def score(model: PreTrainedModel, inputs: Inputs) -> Score:
    """Loss, and divergence from the dense model."""
    found = compare(inputs.dense, model, inputs.evaluation)
    return Score(loss=found.pruned_loss, kl=found.kl_to_dense)


def figures(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model."""
    torch.manual_seed(options.seed)
    inputs = inputs_of(name, options)
    dense = score(inputs.dense, inputs).loss
    bare, repaired = cut(inputs, options)
    pruned, compensated = score(bare, inputs), score(repaired, inputs)
    print(f"{name}: dense {dense:.4f}, pruned {pruned.loss:.4f}, compensated {compensated.loss:.4f}", flush=True)
    rate, scratch_rate = options.learning_rate, options.scratch_learning_rate
    text = healed(repaired, inputs, options, loss="cross_entropy", rate=rate, name="cross-entropy")
    teacher = healed(repaired, inputs, options, loss="distill", rate=rate, name="distillation")
    fresh = with_random_weights(repaired, options.seed)
    scratch = healed(fresh, inputs, options, loss="cross_entropy", rate=scratch_rate, name="from scratch")
    return {
        "dense_loss": dense,
        "pruned_loss": pruned.loss,
        "compensated_loss": compensated.loss,
        "cross_entropy": {**vars(text), "steps": options.steps},
        "distill": {**vars(teacher), "steps": options.steps},
        "from_scratch_loss": scratch.loss,
        "recovered_fraction": (pruned.loss - teacher.loss) / (pruned.loss - dense),
        "recovered_by_healing": (compensated.loss - teacher.loss) / (compensated.loss - dense),
        "kl": {"pruned": pruned.kl, "compensated": compensated.kl, "from_scratch": scratch.kl},
    }


def rows(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Label, loss, KL."""
    return [
        ("dense", found["dense_loss"], 0.0),
        ("pruned", found["pruned_loss"], found["kl"]["pruned"]),
        ("repaired", found["compensated_loss"], found["kl"]["compensated"]),
        ("healed by cross-entropy", found["cross_entropy"]["loss"], found["cross_entropy"]["kl"]),
        ("healed by distillation", found["distill"]["loss"], found["distill"]["kl"]),
        ("from random weights", found["from_scratch_loss"], found["kl"]["from_scratch"]),
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps of each healing")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--scratch-learning-rate", type=float, default=3e-3, help="the best of those tried for it")
    parser.add_argument("--calibration-sequences", type=int, default=128)
    parser.add_argument("--evaluation-tokens", type=int, default=50_000)
    parser.add_argument("--mlp-block", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Print a table per model; with --json also one JSON object as the last line."""
    options = parse()
    torch.set_num_threads(options.threads)
    if not SHARED.is_dir():
        raise SystemExit("There is no ../shared with the models and the text.")
    found = {name: figures(name, options) for name in options.models}
    for name, of_model in found.items():
        table = Table("", "loss", "KL", title=f"{name}, {options.steps} steps of {options.batch_tokens} tokens")
        for label, loss, kl in rows(of_model):
            table.add_row(label, f"{loss:.4f}", f"{kl:.4f}")
        Console().print(table)
        print(
            f"won back: {of_model['recovered_fraction']:.1%}, by healing alone {of_model['recovered_by_healing']:.1%}"
        )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
