"""Gates that are random, often exactly 0 or 1, and yet have a gradient. Knows tensors only.

The hard concrete distribution (Louizos, Welling and Kingma 2018, Learning Sparse Neural Networks through L0
Regularization): a concrete variable between 0 and 1, stretched beyond both and cut off there, so that 0 and 1 have
a probability of their own. One parameter a gate, log α: the higher, the likelier it is open.
"""

from math import log

import torch
from torch import Tensor

# Of the paper: the temperature of the concrete distribution, and how far it is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
# No log α leaves these bounds: beyond them a gate has no gradient left to come back by. Without chance gates are 1 from
# 2.4 on and 0 from −2.4 on; drawn, they are open with a probability of .99 and .03 at the bounds.
CLOSED, OPEN = -5.0, 3.0
# Steps of the bisection.
HALVINGS = 40


def draw(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Gates min(1, max(0, s(ζ − γ) + γ)), s = σ((ln u − ln(1 − u) + log α)/β), for u uniform in (0, 1)."""
    return _stretched(torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA))


def settled(log_alpha: Tensor) -> Tensor:
    """Gates without chance, for evaluation: min(1, max(0, σ(log α)(ζ − γ) + γ))."""
    return _stretched(torch.sigmoid(log_alpha))


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(gate ≠ 0) = σ(log α − β ln(−γ/ζ)); summed over gates it is the expected L0 norm."""
    return torch.sigmoid(log_alpha - BETA * log(-GAMMA / ZETA))


def log_alpha_of(gates: Tensor) -> Tensor:
    """The inverse of `settled`: log α of gates between 0 and 1."""
    between = torch.logit((gates - GAMMA) / (ZETA - GAMMA))
    return torch.where(gates >= 1, OPEN, torch.where(gates <= 0, CLOSED, between))


def shifted(log_alpha: Tensor, open_share: float) -> Tensor:
    """Log α plus whatever constant makes the mean probability of being open `open_share`, within the bounds."""
    low, high = CLOSED - float(log_alpha.max()), OPEN - float(log_alpha.min())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float(open_probability(_bounded(log_alpha + middle)).mean()) > open_share:
            high = middle
        else:
            low = middle
    return _bounded(log_alpha + low)


def _bounded(log_alpha: Tensor) -> Tensor:
    return log_alpha.clamp(CLOSED, OPEN)


def _stretched(s: Tensor) -> Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
