"""Losses of rows of logits, a few rows at a time, whose gradient takes the place of the logits.

Logits are the largest tensors there are. Autograd would keep their log-probabilities and make two more tensors as large
on the way back. Both losses here are cross-entropies against some distribution p, and the derivative of either by the
logits is q − p, with q the model's own distribution: it is made from the logits once more on the way back, and written
over them, rounded to their type only then. So logits are of no more use once the gradient was taken.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers handled at a time: few beside all logits of a batch, and enough to keep the device busy.
NUMBERS_AT_A_TIME = {"cpu": 1 << 18}
NUMBERS_ON_ACCELERATORS = 1 << 26


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """−log p(target) of every row, in nats.

    Args:
        logits: (rows, vocabulary); overwritten when a gradient is taken.
        targets: int64 (rows,).

    Returns:
        float32 (rows,), differentiable once.
    """
    return _RowLosses.apply(logits, targets, _CrossEntropy)


def divergences(dense_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(dense ‖ own) of every row, in nats. No gradient flows to the dense logits.

    Args:
        dense_logits: (rows, vocabulary).
        logits: (rows, vocabulary); overwritten when a gradient is taken.

    Returns:
        float32 (rows,), differentiable once.
    """
    return _RowLosses.apply(logits, dense_logits.detach(), _Divergence)


class _Loss(Protocol):
    """What tells one of these losses from another: p, given as one number or more a row."""

    @staticmethod
    def of(log_q: Tensor, aims: Tensor) -> Tensor:
        """The losses (rows,) of log-probabilities (rows, vocabulary), float32."""

    @staticmethod
    def take_off(q: Tensor, aims: Tensor) -> None:
        """Turn q into q − p, in place."""


class _CrossEntropy(_Loss):
    @staticmethod
    def of(log_q: Tensor, aims: Tensor) -> Tensor:
        return -log_q.gather(1, aims[:, None]).squeeze(1)

    @staticmethod
    def take_off(q: Tensor, aims: Tensor) -> None:
        q.scatter_add_(1, aims[:, None], q.new_full((), -1).expand(len(q), 1))


class _Divergence(_Loss):
    @staticmethod
    def of(log_q: Tensor, aims: Tensor) -> Tensor:
        log_p = functional.log_softmax(aims.float(), dim=-1)
        return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)

    @staticmethod
    def take_off(q: Tensor, aims: Tensor) -> None:
        q.sub_(functional.softmax(aims.float(), dim=-1))


class _RowLosses(torch.autograd.Function):
    """Any such loss; keeps nothing beside the logits and what it compares them with."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, aims: Tensor, loss: type[_Loss]) -> Tensor:  # noqa: ANN401 - torch does not type it
        """(rows,), float32."""
        losses = logits.new_empty(len(logits), dtype=torch.float32)
        for rows in _few(logits):
            losses[rows] = loss.of(functional.log_softmax(logits[rows].float(), dim=-1), aims[rows])
        ctx.save_for_backward(logits, aims)
        ctx.loss = loss
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Every row's gradient times what the loss was multiplied with, in the place of the logits."""
        logits, aims = ctx.saved_tensors  # raises where they were overwritten before
        for rows in _few(logits):
            q = functional.softmax(logits[rows].float(), dim=-1)
            ctx.loss.take_off(q, aims[rows])
            torch.mul(q, factors[rows, None], out=logits[rows])
        return logits, None, None


def _few(logits: Tensor) -> list[slice]:
    count, vocabulary = logits.shape
    step = max(1, NUMBERS_AT_A_TIME.get(logits.device.type, NUMBERS_ON_ACCELERATORS) // vocabulary)
    return [slice(start, start + step) for start in range(0, count, step)]
