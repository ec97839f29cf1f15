"""The output error that is left after the best linear repair, group by group: structured optimal brain surgeon."""

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.least_squares import USUAL_RIDGE
from sentinel.pruning.ranking import Ranking
from sentinel.pruning.sensitivity import in_nats
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics

# Groups of one column are neurons: so many of the least important, or this share of those that are left where that is
# more, go at once before the others are scored again.
TOGETHER = 8
TOGETHER_SHARE = 1 / 64
# Down-dates that are kept as factors before they are multiplied out, in rows.
PENDING = 128


def rank(calibration: Calibration) -> list[Ranking]:
    """tr(W_h [(C⁻¹)_hh]⁻¹ W_hᵀ), W and C⁻¹ down-dated after every removal (ZipLM, Kurtic et al. 2023).

    Where the projection has a bias, Σ = C − μμᵀ stands for C. Scaled by the sensitivity κ of the site.
    """
    return in_nats(from_statistics(calibration, _rank), calibration)


def _rank(site: SiteStatistics) -> Ranking:
    second = site.covariance if site.has_bias else site.second
    ridge = USUAL_RIDGE * second.diagonal().mean() + torch.finfo(torch.float32).tiny  # of a silent site nothing else
    regularised = second + ridge * torch.eye(len(second), dtype=second.dtype, device=second.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regularised))
    elimination = _Elimination(site.weight, inverse, site.num_groups)
    while elimination.left:
        elimination.remove(1 if elimination.width > 1 else max(TOGETHER, int(TOGETHER_SHARE * elimination.left)))
    return elimination.ranking()


class _Elimination:
    """Removes groups one after the other from a least-squares predictor.

    Keeps H = C⁻¹ and G = WᵀW of the columns that were left when the matrices were last multiplied out; since then
    H has become H − UᵀU and G has become G − UᵀA − AᵀU, for U and A with a row per column removed since. Everything
    stays on the device until the end: on a GPU a step is short, and asking for its result takes longer.
    """

    def __init__(self, weight: torch.Tensor, inverse: torch.Tensor, num_groups: int) -> None:
        self.width = weight.shape[1] // num_groups
        self.left = num_groups
        self._order: list[torch.Tensor] = []
        self._damages: list[torch.Tensor] = []
        self._reset(inverse, weight.T @ weight, torch.arange(num_groups, device=weight.device))

    def ranking(self) -> Ranking:
        """What was removed, in order, and the damage done by then."""
        damages = torch.cat(self._damages).double().cpu()
        return Ranking(order=torch.cat(self._order).tolist(), damage=damages.cumsum(0))

    def _reset(self, inverse: torch.Tensor, gram: torch.Tensor, groups: torch.Tensor) -> None:
        """The matrices hold these groups, and nothing is pending."""
        self._inverse, self._gram, self._groups = inverse, gram, groups
        self._gone = torch.zeros(len(groups), dtype=torch.bool, device=groups.device)
        self._u = self._a = inverse.new_zeros(0, len(inverse))
        self._inverse_blocks, self._gram_blocks = self._blocks(inverse), self._blocks(gram)

    def remove(self, count: int) -> None:
        """Remove the `count` groups whose loss costs least now, and let the others make up for them."""
        count = min(count, self.left)
        errors = self._errors()
        chosen = torch.argsort(errors, stable=True)[:count]
        self._order.append(self._groups[chosen])
        self._damages.append(errors[chosen])
        self._gone[chosen] = True
        self.left -= count
        self._downdate(chosen)
        if len(self._u) >= PENDING:
            self._multiply_out()

    def _errors(self) -> torch.Tensor:
        """tr(W_h [(C⁻¹)_hh]⁻¹ W_hᵀ) of every group in the matrices, (groups,); infinite for those that are gone."""
        inverse, gram = self._inverse_blocks, self._gram_blocks
        if self.width == 1:
            errors = (gram / inverse).flatten()
        else:
            one = torch.eye(self.width, dtype=inverse.dtype, device=inverse.device)
            there = torch.where(self._gone[:, None, None], one, inverse)
            errors = torch.linalg.solve_ex(there, gram).result.diagonal(dim1=1, dim2=2).sum(1)
        return errors.masked_fill(self._gone, torch.inf)

    def _downdate(self, positions: torch.Tensor) -> None:
        """W ← W − W_S [(C⁻¹)_SS]⁻¹ (C⁻¹)_S,: and the inverse of C without S, by new rows of U and A."""
        columns = (positions[:, None] * self.width + torch.arange(self.width, device=positions.device)).flatten()
        inverse = self._inverse[columns] - self._u[:, columns].T @ self._u
        gram = self._gram[columns] - self._u[:, columns].T @ self._a - self._a[:, columns].T @ self._u
        factor = torch.linalg.cholesky_ex(inverse[:, columns]).L
        u = torch.linalg.solve_triangular(factor, inverse, upper=False)
        along = torch.linalg.solve_triangular(factor, gram, upper=False)
        a = along - torch.linalg.solve_triangular(factor, along[:, columns].T, upper=False) @ u / 2
        self._u, self._a = torch.cat([self._u, u]), torch.cat([self._a, a])
        u, a = (rows.view(len(rows), -1, self.width).transpose(0, 1) for rows in (u, a))
        across = u.mT @ a
        self._inverse_blocks -= u.mT @ u
        self._gram_blocks -= across + across.mT

    def _multiply_out(self) -> None:
        groups = torch.argsort(self._gone.int(), stable=True)[: self.left]
        columns = (groups[:, None] * self.width + torch.arange(self.width, device=groups.device)).flatten()
        u, a = self._u[:, columns], self._a[:, columns]
        across = u.T @ a
        inverse = self._inverse[columns][:, columns] - u.T @ u
        self._reset(inverse, self._gram[columns][:, columns] - across - across.T, self._groups[groups])

    def _blocks(self, matrix: torch.Tensor) -> torch.Tensor:
        """The groups' own blocks, (groups, width, width); a copy."""
        count = len(matrix) // self.width
        return matrix.view(count, self.width, count, self.width).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
