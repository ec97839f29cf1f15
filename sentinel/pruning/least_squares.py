"""Least-squares repair of an output projection after some of its input columns are removed.

Tensor arithmetic only. Notation of one layer (shapes in suffixes): W_OI weight, x_I input,
C_II = E[x xᵀ], μ_I = E[x], Σ = C − μμᵀ; S removed columns, K kept ones.
Structured optimal brain surgeon, as in ZipLM (2023) and SlimGPT (2024).
"""

from dataclasses import dataclass

import torch

# Ridge λ as a share of the mean diagonal of the kept block; keeps the solve stable when kept inputs are collinear.
RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Statistics of a projection's input.

    Attributes:
        second: Uncentred C = E[x xᵀ], float64, (in, in).
        mean: μ = E[x], float64, (in,).
    """

    second: torch.Tensor
    mean: torch.Tensor


class MomentAccumulator:
    """Sums x and x xᵀ over calibration tokens, in float64."""

    def __init__(self, width: int, *, device: torch.device) -> None:
        self._second = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Add a batch of shape (..., in)."""
        x_NI = inputs.detach().reshape(-1, inputs.shape[-1]).double()
        self._second += x_NI.T @ x_NI
        self._sum += x_NI.sum(0)
        self._tokens += len(x_NI)

    def moments(self) -> Moments:
        """The averages over everything added."""
        return Moments(second=self._second / self._tokens, mean=self._sum / self._tokens)


@dataclass(frozen=True, kw_only=True)
class Refit:
    """New values of the surviving columns, and what the cut costs in output error.

    Attributes:
        weight: W'_K, (out, kept), float64.
        bias: b', (out,), float64; None where the projection has no bias.
        error_before: E‖Wx − W_K x_K‖² / E‖Wx‖², closing the groups and nothing else.
        error_after: The same with W'_K and b'; never above `error_before`.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    error_before: float
    error_after: float


def refit(weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments, kept: torch.Tensor) -> Refit:
    """W'_K = W_K + W_S Σ_SK (Σ_KK + λI)⁻¹ and b' = b + (W − W')μ; without a bias C stands for Σ.

    Args:
        weight: W, (out, in).
        bias: b, (out,), or None.
        moments: Statistics of the projection's input on the calibration text.
        kept: Boolean (in,), True for the columns that stay.
    """
    W = weight.double()
    C = moments.second
    if bias is not None:
        C = C - torch.outer(moments.mean, moments.mean)
    update = W[:, ~kept] @ _ridge_solution(C, kept)
    change = W.clone()
    change[:, kept] = -update
    new_bias = None if bias is None else bias.double() + change @ moments.mean
    return Refit(
        weight=W[:, kept] + update,
        bias=new_bias,
        error_before=relative_error(_removed_columns(W, kept), moments.second, W),
        error_after=_energy(change, C) / _energy(W, moments.second),
    )


def relative_error(difference: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> float:
    """E‖D x‖² / E‖W x‖² for a change D of the weight, (out, in) both."""
    return _energy(difference.double(), second) / _energy(weight.double(), second)


def _removed_columns(weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    return weight.masked_fill(kept, 0.0)


def _ridge_solution(C: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Σ_SK (Σ_KK + λI)⁻¹, (removed, kept)."""
    C_KK = C[kept][:, kept]
    ridge = RIDGE * C_KK.diagonal().mean()
    regularised = C_KK + ridge * torch.eye(len(C_KK), dtype=C.dtype, device=C.device)
    return torch.linalg.solve(regularised, C[kept][:, ~kept]).T


def _energy(matrix: torch.Tensor, second: torch.Tensor) -> float:
    """tr(M C Mᵀ) = E‖M x‖²."""
    return float(torch.einsum("oi,ij,oj->", matrix, second, matrix))
