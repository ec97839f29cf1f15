"""Parameters in float32 for the length of one step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_float32(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Hold parameters in float32 while the context lasts; nothing is rounded, and gradients come back in their type."""
    types = [parameter.dtype for parameter in parameters]
    _convert(parameters, [torch.float32] * len(types))
    try:
        yield
    finally:
        _convert(parameters, types)


@torch.no_grad()
def _convert(parameters: Sequence[nn.Parameter], types: Sequence[torch.dtype]) -> None:
    for parameter, dtype in zip(parameters, types, strict=True):
        gradient, parameter.grad = parameter.grad, None  # a gradient must have the type of its parameter
        parameter.data = parameter.data.to(dtype)
        parameter.grad = None if gradient is None else gradient.to(dtype)
