"""Least-squares repair of an output projection after some of its input columns are removed.

Tensor arithmetic only. Notation of one projection (shapes in suffixes): W_OK the weight of the kept columns,
x_K their input, t_O the output that the projection should have, E = t − (W x + b) what it lacks.
Structured optimal brain surgeon, as in ZipLM (2023) and SlimGPT (2024): with t = the uncut output, the
solution is W'_K = W_K + W_S Σ_SK (Σ_KK + λI)⁻¹ and b' = b + (W − W')μ.
"""

from dataclasses import dataclass

import torch

# Ridge λ as a share of the mean diagonal of the inputs' second moment; the best on held-out windows is taken.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Every so many calibration windows, one is held out to choose the ridge.
HELD_OUT_EVERY = 4
# The ridge where nothing could be held out.
USUAL_RIDGE = 1e-2
# Columns up to which a symmetric product is computed whole; wider ones compute one triangle of blocks.
SYMMETRIC_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over tokens, float64: of x xᵀ (in, in), x Eᵀ (in, out), x (in,), E (out,), ‖E‖², ‖t‖², and their number."""

    xx: torch.Tensor
    xe: torch.Tensor
    x: torch.Tensor
    e: torch.Tensor
    ee: float
    tt: float
    tokens: int

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @classmethod
    def of(cls, inputs: torch.Tensor, lack: torch.Tensor, target: torch.Tensor) -> "Sums":
        """The sums of one batch: inputs (..., in), lack and target (..., out); products in float32 at least."""
        x_NI, e_NO, t_NO = (rows_of(tensor) for tensor in (inputs, lack, target))
        return cls(
            xx=gram(x_NI).double(),
            xe=(x_NI.T @ e_NO).double(),
            x=x_NI.sum(0, dtype=torch.float64),
            e=e_NO.sum(0, dtype=torch.float64),
            ee=_square_sum(e_NO),
            tt=_square_sum(t_NO),
            tokens=len(x_NI),
        )

    def of_own_output(self, weight: torch.Tensor, kept: torch.Tensor) -> "Sums":
        """From sums of x alone, those of the kept columns with t = W x and E = W_S x_S, S the columns that go.

        Args:
            weight: W, (out, in), float64.
            kept: bool (in,).
        """
        removed, gone = weight[:, ~kept], self.xx[~kept][:, ~kept]
        return Sums(
            xx=self.xx[kept][:, kept],
            xe=self.xx[kept][:, ~kept] @ removed.T,
            x=self.x[kept],
            e=removed @ self.x[~kept],
            ee=float((removed @ gone * removed).sum()),
            tt=float((weight @ self.xx * weight).sum()),
            tokens=self.tokens,
        )

    def centred(self) -> "Sums":
        """The same about the means, as a projection with a bias sees them."""
        x_mean, e_mean = self.x / self.tokens, self.e / self.tokens
        return Sums(
            xx=self.xx - torch.outer(self.x, x_mean),
            xe=self.xe - torch.outer(self.x, e_mean),
            x=torch.zeros_like(self.x),
            e=torch.zeros_like(self.e),
            ee=self.ee - float(self.e @ e_mean),
            tt=self.tt,
            tokens=self.tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Refit:
    """The change of a projection, and what it mends.

    Attributes:
        weight: W' − W, (out, in), float64.
        bias: b' − b, (out,), float64; None where the projection has no bias.
        error_before: E‖t − Wx − b‖² / E‖t‖², all calibration tokens.
        error_after: The same with W' and b'; never above `error_before`.
        ridge: The λ that was best on the held-out tokens, as a share of the mean diagonal.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    error_before: float
    error_after: float
    ridge: float


class SplitSums:
    """Sums over calibration windows, some of them held out."""

    def __init__(self, fitted: Sums | None = None, held_out: Sums | None = None) -> None:
        self._windows = 0
        self.fitted = fitted
        self.held_out = held_out

    def add(self, inputs: torch.Tensor, *, lack: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch: inputs (windows, tokens, in), lack and target (windows, tokens, out)."""
        indices = torch.arange(self._windows, self._windows + len(inputs), device=inputs.device)
        self._windows += len(inputs)
        out = indices % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        self.fitted = _plus(self.fitted, inputs[~out], lack[~out], target[~out])
        self.held_out = _plus(self.held_out, inputs[out], lack[out], target[out])

    def add_inputs(self, inputs: torch.Tensor) -> None:
        """Add a batch of inputs alone, (windows, tokens, in)."""
        self.add(inputs, lack=inputs[..., :0], target=inputs[..., :0])

    def of_own_output(self, weight: torch.Tensor, kept: torch.Tensor) -> "SplitSums":
        """As of `Sums`."""
        fitted, held_out = (sums and sums.of_own_output(weight, kept) for sums in (self.fitted, self.held_out))
        return SplitSums(fitted, held_out)


def _plus(sums: Sums | None, *batch: torch.Tensor) -> Sums | None:
    if not len(batch[0]):
        return sums
    return Sums.of(*batch) if sums is None else sums + Sums.of(*batch)


def refit(sums: SplitSums, *, has_bias: bool) -> Refit:
    """The least-squares change of a projection: its ridge chosen on the held-out windows, then solved on all.

    Inputs that do not vary but for rounding have no solution; then the weight stays as it is.
    """
    fitted, held_out = sums.fitted, sums.held_out
    assert fitted is not None  # noqa: S101 - the first window is never held out
    everything = fitted if held_out is None else fitted + held_out
    ridges = [USUAL_RIDGE] if held_out is None else _best_ridges(fitted, held_out, has_bias=has_bias)
    whole = everything.centred() if has_bias else everything
    solutions = ((solution, ridge) for ridge in ridges if (solution := _solve(whole, ridge)) is not None)
    change, ridge = next(solutions, (torch.zeros_like(whole.xe.T), max(RIDGES)))
    scale = max(everything.tt, torch.finfo(torch.float64).tiny)
    return Refit(
        weight=change,
        bias=(everything.e - change @ everything.x) / everything.tokens if has_bias else None,
        error_before=everything.ee / scale,
        error_after=max(0.0, _error(whole, change)) / scale,
        ridge=ridge,
    )


def _best_ridges(fitted: Sums, held_out: Sums, *, has_bias: bool) -> list[float]:
    """The ridges with which there is a solution, the best on the held-out tokens first."""
    train, test = (fitted.centred(), held_out.centred()) if has_bias else (fitted, held_out)
    errors: dict[float, float] = {}
    for share in RIDGES:
        solution = _solve(train, share)
        if solution is not None:
            errors[share] = _error(test, solution)
    return sorted(errors, key=lambda share: errors[share])


def _solve(sums: Sums, share: float) -> torch.Tensor | None:
    """(Σ x xᵀ + λI)⁻¹ Σ x Eᵀ, transposed: (out, in). λ is `share` of the mean diagonal.

    None where λ is less than what rounding makes of sums of inputs whose mean is far above what they vary by.
    """
    if not len(sums.xx):
        return sums.xe.T
    ridge = share * sums.xx.diagonal().mean() + torch.finfo(torch.float32).tiny
    regularised = sums.xx + ridge * torch.eye(len(sums.xx), dtype=sums.xx.dtype, device=sums.xx.device)
    factor, failed = torch.linalg.cholesky_ex(regularised)
    return None if failed else torch.cholesky_solve(sums.xe, factor).T


def _error(sums: Sums, change: torch.Tensor) -> float:
    """Σ ‖E − D x‖² for a change D of the weight."""
    return sums.ee - float((change * (2 * sums.xe.T - change @ sums.xx)).sum())


def gram(rows: torch.Tensor) -> torch.Tensor:
    """xᵀx of rows x (tokens, features), (features, features), at little more than half the cost of a product."""
    features = rows.shape[1]
    if features <= SYMMETRIC_BLOCK:
        return rows.T @ rows
    half = features // 2
    product = rows.new_empty(features, features)
    product[:half, :half] = gram(rows[:, :half])
    product[half:, half:] = gram(rows[:, half:])
    product[:half, half:] = rows[:, :half].T @ rows[:, half:]
    product[half:, :half] = product[:half, half:].T
    return product


def _square_sum(rows: torch.Tensor) -> float:
    """Σ over all entries of their squares: a row in its own precision, the rows in float64."""
    return float(rows.square().sum(1).sum(dtype=torch.float64))


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """(tokens, features) in float32, or in float64 where it came so."""
    rows = tensor.detach().flatten(0, -2)
    return rows if rows.dtype == torch.float64 else rows.float()
