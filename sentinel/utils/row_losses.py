"""Losses of rows of logits with their gradients, a few rows at a time.

Logits are the largest tensors there are. Autograd would keep their log-probabilities and make two more tensors as large
on the way back; here the gradient is made on the way there, some rows at a time, and is all that stays. It is rounded
to the logits' type once, at the very end.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers handled at a time: few beside all logits of a batch, and enough to keep the device busy.
NUMBERS_AT_A_TIME = {"cpu": 1 << 18}
NUMBERS_ON_ACCELERATORS = 1 << 26

# From log-probabilities (rows, vocabulary), float32, and which rows they are: the losses (rows,), and what turns the
# log-probabilities, in place, into the losses' derivatives by the logits.
Loss = Callable[[Tensor, slice], tuple[Tensor, Callable[[], Tensor]]]


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """−log p(target) of every row, in nats.

    Args:
        logits: (rows, vocabulary).
        targets: int64 (rows,).

    Returns:
        float32 (rows,), differentiable once.
    """
    places = targets[:, None]

    def loss(log_q: Tensor, rows: slice) -> tuple[Tensor, Callable[[], Tensor]]:
        at = places[rows]
        ones = torch.ones((), device=at.device).expand(at.shape)
        return -log_q.gather(1, at).squeeze(1), lambda: log_q.exp_().scatter_add_(1, at, -ones)

    return _RowLosses.apply(logits, loss)


def divergences(dense_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(dense ‖ own) of every row, in nats. No gradient flows to the dense logits.

    Args:
        dense_logits: (rows, vocabulary).
        logits: (rows, vocabulary).

    Returns:
        float32 (rows,), differentiable once.
    """
    dense = dense_logits.detach()

    def loss(log_q: Tensor, rows: slice) -> tuple[Tensor, Callable[[], Tensor]]:
        log_p = functional.log_softmax(dense[rows].float(), dim=-1)
        losses = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        return losses, lambda: log_q.exp_().sub_(log_p.exp_())

    return _RowLosses.apply(logits, loss)


class _RowLosses(torch.autograd.Function):
    """Any such loss; its gradient is made on the way there, so that nothing else has to be kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Loss) -> Tensor:  # noqa: ANN401 - torch does not type it
        """(rows,), float32."""
        losses = logits.new_empty(len(logits), dtype=torch.float32)
        ctx.dtype = logits.dtype
        ctx.gradient = torch.empty_like(logits, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        for rows in _few(logits):
            log_q = functional.log_softmax(logits[rows].float(), dim=-1)
            losses[rows], derivatives = loss(log_q, rows)
            if ctx.gradient is not None:
                ctx.gradient[rows] = derivatives()
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Every row's gradient times what the loss was multiplied with; in place, so only once."""
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("The gradient of these losses was taken before; compute them again.")
        return gradient.mul_(factors[:, None]).to(ctx.dtype), None


def _few(logits: Tensor) -> list[slice]:
    count, vocabulary = logits.shape
    step = max(1, NUMBERS_AT_A_TIME.get(logits.device.type, NUMBERS_ON_ACCELERATORS) // vocabulary)
    return [slice(start, start + step) for start in range(0, count, step)]
