"""Finds where numbers stop being finite: the first module that puts them out, the parameters that hold them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def broken_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that hold a number that is not finite."""
    return [name for name, parameter in model.named_parameters() if not _is_finite(parameter)]


def broken_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient holds one."""
    return [name for name, p in model.named_parameters() if p.grad is not None and not _is_finite(p.grad)]


@torch.no_grad()
def first_broken_module(model: nn.Module, tokens: Tensor) -> str | None:
    """Name of the first module in the order of the forward pass whose output is not finite; None if there is none.

    Args:
        model: Takes `input_ids`.
        tokens: int64 (windows, sequence_length).
    """
    broken: list[str] = []
    with _watching(model, broken):
        model(input_ids=tokens, use_cache=False)
    return broken[0] if broken else None


def describe(model: nn.Module, tokens: Tensor) -> str:
    """Where numbers stop being finite, as a clause."""
    if names := broken_parameters(model):
        return f"{len(names)} parameter(s) are not finite, the first is {names[0]}"
    if module := first_broken_module(model, tokens):
        return f"the first output that is not finite is that of {module}"
    if names := broken_gradients(model):
        return f"{len(names)} gradient(s) are not finite, the first is that of {names[0]}"
    return "the weights, outputs and gradients of the model are finite"


@contextmanager
def _watching(model: nn.Module, broken: list[str]) -> Iterator[None]:
    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and not _is_finite(first):
                broken.append(name)

        return modules[name].register_forward_hook(note)

    modules = {name: module for name, module in model.named_modules() if name}
    handles = [watch(name) for name in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
