"""Rotary positions in fewer passes, on the CPU in float32; what they put out stays the same, bit for bit.

transformers swaps the halves of every query and key, which autograd undoes by way of tensors of zeros. Here each half
is rotated where it is written, and back in the same way.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.models.llama import modeling_llama

_ROTATE = "apply_rotary_pos_emb"


@contextmanager
def quick_rotations(model: nn.Module) -> Iterator[None]:
    """Rotate quicker in every modelling file of the model's that does it as Llama's, while the context lasts.

    The function is the file's, so other models of the kind rotate quicker as well meanwhile, to the same numbers.
    """
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    before = {file: getattr(file, _ROTATE) for file in files if _is_llamas(file)}
    for file, rotate in before.items():
        setattr(file, _ROTATE, _quick(rotate))
    try:
        yield
    finally:
        for file, rotate in before.items():
            setattr(file, _ROTATE, rotate)


def _is_llamas(file: ModuleType) -> bool:
    """Whether the file's functions are copies of Llama's."""
    return all(_code(file, name) == _code(modeling_llama, name) is not None for name in (_ROTATE, "rotate_half"))


def _code(file: ModuleType, name: str) -> bytes | None:
    code: CodeType | None = getattr(getattr(file, name, None), "__code__", None)
    return code.co_code if code else None


def _quick(rotate: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The same function of queries, keys, and the cosines and sines of their positions."""

    def rotate_quickly(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in (q, k, cos, sin)):
            return rotate(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return _Rotation.apply(q, cos, sin), _Rotation.apply(k, cos, sin)

    return rotate_quickly


class _Rotation(torch.autograd.Function):
    """(a, b) → (a cos − b sin, b cos + a sin), where a and b are the halves of the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401 - torch does not type it
        """Of x (…, features) and what broadcasts to it."""
        ctx.save_for_backward(cos, sin)
        y, half = x * cos, x.shape[-1] // 2
        # Not by addcmul_, which rounds once less.
        y[..., :half].sub_(x[..., half:] * sin[..., :half])
        y[..., half:].add_(x[..., :half] * sin[..., half:])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - as above
        """By x."""
        cos, sin = ctx.saved_tensors
        by_x, half = gradient * cos, gradient.shape[-1] // 2
        by_x[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        by_x[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
        return by_x, None, None
