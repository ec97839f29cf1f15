"""RMS norms whose backward pass is one kernel, on the CPU in float32; what they put out stays the same, bit for bit.

transformers writes the norm out, and autograd goes back through every piece of it, some ten passes over tensors as
large as the hidden states. torch has a kernel for the backward pass of the layer norm: with a mean of zero it gives all
of an RMS norm's but one term, which it takes off for the mean that an RMS norm does not have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sentinel.models.families.adaptations import Adaptation


@contextmanager
def quick_rms_norms(model: nn.Module) -> Iterator[None]:
    """Give every norm that is written as Llama's its quicker backward pass while the context lasts."""
    norms = [module for module in model.modules() if _is_rms_norm(module)]
    for norm in norms:
        norm.forward = partial(_normalised, norm, norm.forward)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the instance's; the class has its own


def _is_rms_norm(module: nn.Module) -> bool:
    """Llama's and what is copied from it; Gemma's has another scale and no such attribute, an adapted one does more."""
    is_named_so = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
    return is_named_so and not isinstance(module, Adaptation)


def _normalised(norm: nn.Module, forward: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - a method of any such class
    tensors = (x, norm.weight)
    if all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors):
        return _RMSNorm.apply(*tensors, norm.variance_epsilon)
    return forward(x)


class _RMSNorm(torch.autograd.Function):
    """y = w x / √(mean x² + ε), over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:  # noqa: ANN401 - torch does not type it
        """Of x (…, features) and w (features,)."""
        scale = x.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        """By x and by w."""
        x, weight, scale = ctx.saved_tensors
        features = x.shape[-1]
        wanted = [*ctx.needs_input_grad[:2], False]
        by_x, by_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient.contiguous(), x, [features], torch.zeros_like(scale), scale, weight, None, wanted
        )
        if by_x is not None:
            by_x.addcmul_((gradient @ weight)[..., None], scale, value=1 / features)
        return by_x, by_weight, None
