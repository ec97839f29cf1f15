"""What training needs, beside the model's own weights, to go on bit for bit: safetensors and JSON, never pickle.

The files lie in a folder that somebody else makes appear complete or not at all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sentinel.errors import CheckpointInvalid

STATE_FILE = "training.json"
OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.safetensors"
BEST_FILE = "best.safetensors"
ADAPTERS_FILE = "adapters.safetensors"


class TrainingState(BaseModel):
    """Everything that is not a tensor.

    Attributes:
        step: Optimiser steps done.
        position: Batches taken.
        micro_windows: Windows per forward pass, which may have been halved.
        scheduler: Its `state_dict`.
        scaler: The loss scaler's `state_dict`; empty where the precision needs none.
        losses: Those by which the next one is judged.
        left_out: How many steps were left out.
        put_back: How often the weights were put back.
        best: The best measurement so far, None before the first.
        best_step: When.
        waited: Measurements since then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = 0
    position: int = 0
    micro_windows: int
    scheduler: dict[str, Any] = {}
    scaler: dict[str, Any] = {}
    losses: list[float] = []
    left_out: int = 0
    put_back: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0


def write_state(folder: Path, state: TrainingState) -> None:
    """Write the numbers."""
    (folder / STATE_FILE).write_text(state.model_dump_json(), encoding="utf-8")


def read_state(folder: Path) -> TrainingState:
    """Read the numbers.

    Raises:
        CheckpointInvalid: They are missing or damaged.
    """
    try:
        return TrainingState.model_validate_json((folder / STATE_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointInvalid(f"Cannot read the saved training state: {error}") from error


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, from whichever device."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read tensors by name, onto the CPU.

    Raises:
        CheckpointInvalid: The file is missing or damaged.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointInvalid(f"Cannot read the saved {file.name}: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The moments and step counts, as `exp_avg.<parameter>`."""
    return {
        f"{key}.{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    numbers = {names[p]: i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        key, _, parameter = name.partition(".")
        state.setdefault(numbers[parameter], {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def random_tensors() -> dict[str, Tensor]:
    """State of torch's generators: of the CPU, and of the GPU in use."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def restore_random(states: Mapping[str, Tensor]) -> None:
    """Put back what `random_tensors` gave."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
