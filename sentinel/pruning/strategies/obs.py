"""The output error that is left after the best linear repair, group by group: structured optimal brain surgeon."""

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.least_squares import USUAL_RIDGE
from sentinel.pruning.ranking import Ranking
from sentinel.pruning.sensitivity import in_nats
from sentinel.pruning.strategies.closed_form import SiteStatistics, rank_sites

# Groups of many sites are neurons: this many of the least important go at once before the others are scored again.
TOGETHER = 8
# Down-dates that are kept as factors before they are multiplied out, in rows.
PENDING = 128


def rank(calibration: Calibration) -> list[Ranking]:
    """tr(W_h [(C⁻¹)_hh]⁻¹ W_hᵀ), W and C⁻¹ down-dated after every removal (ZipLM, Kurtic et al. 2023).

    Where the projection has a bias, Σ = C − μμᵀ stands for C. Scaled by the sensitivity κ of the site.
    """
    return in_nats(rank_sites(calibration, _rank), calibration)


def _rank(site: SiteStatistics) -> Ranking:
    second = site.covariance if site.has_bias else site.second
    ridge = USUAL_RIDGE * second.diagonal().mean() * torch.eye(len(second), dtype=second.dtype, device=second.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(second + ridge))
    elimination = _Elimination(site.weight, inverse, site.num_groups)
    together = 1 if elimination.width > 1 else TOGETHER
    while elimination.left:
        elimination.remove(together)
    return Ranking(order=elimination.order, damage=torch.tensor(elimination.damages, dtype=torch.float64).cumsum(0))


class _Elimination:
    """Removes groups one after the other from a least-squares predictor.

    Keeps H = C⁻¹ and G = WᵀW of the columns that were left when the matrices were last multiplied out; since then
    H has become H − UᵀU and G has become G − UᵀA − AᵀU, for U and A with a row per column removed since.
    """

    def __init__(self, weight: torch.Tensor, inverse: torch.Tensor, num_groups: int) -> None:
        self.width = weight.shape[1] // num_groups
        self.left = list(range(num_groups))
        self.order: list[int] = []
        self.damages: list[float] = []
        self._inverse, self._gram = inverse, weight.T @ weight
        self._reset()

    def _reset(self) -> None:
        """The matrices hold the groups that are left, and nothing is pending."""
        self._groups = list(self.left)
        self._there = torch.ones(len(self.left), dtype=torch.bool, device=self._inverse.device)
        self._u = self._a = self._inverse.new_zeros(0, len(self._inverse))
        self._inverse_blocks, self._gram_blocks = self._blocks(self._inverse), self._blocks(self._gram)

    def remove(self, count: int) -> None:
        """Remove the `count` groups whose loss costs least now, and let the others make up for them."""
        errors = self._errors()
        chosen = torch.argsort(errors, stable=True)[: min(count, len(self.left))].tolist()
        groups = [self._groups[position] for position in chosen]
        self.order += groups
        self.damages += errors[chosen].tolist()
        self.left = [group for group in self.left if group not in set(groups)]
        self._downdate(chosen)
        if len(self._u) >= PENDING:
            self._multiply_out()

    def _errors(self) -> torch.Tensor:
        """tr(W_h [(C⁻¹)_hh]⁻¹ W_hᵀ) of every group in the matrices, (groups,); infinite for those that are gone."""
        inverse, gram = self._inverse_blocks[self._there], self._gram_blocks[self._there]
        traces = torch.linalg.solve(inverse, gram).diagonal(dim1=1, dim2=2).sum(1) if self.width > 1 else gram / inverse
        errors = inverse.new_full((len(self._groups),), torch.inf)
        errors[self._there] = traces.flatten()
        return errors.cpu()

    def _downdate(self, positions: list[int]) -> None:
        """W ← W − W_S [(C⁻¹)_SS]⁻¹ (C⁻¹)_S,: and the inverse of C without S, by new rows of U and A."""
        self._there[positions] = False
        starts = torch.tensor(positions, device=self._u.device)[:, None] * self.width
        columns = (starts + torch.arange(self.width, device=self._u.device)).flatten()
        inverse = self._inverse[columns] - self._u[:, columns].T @ self._u
        gram = self._gram[columns] - self._u[:, columns].T @ self._a - self._a[:, columns].T @ self._u
        factor = torch.linalg.cholesky(inverse[:, columns])
        u = torch.linalg.solve_triangular(factor, inverse, upper=False)
        along = torch.linalg.solve_triangular(factor, gram, upper=False)
        a = along - torch.linalg.solve_triangular(factor, along[:, columns].T, upper=False) @ u / 2
        self._u, self._a = torch.cat([self._u, u]), torch.cat([self._a, a])
        u, a = (rows.view(len(rows), -1, self.width).transpose(0, 1) for rows in (u, a))
        across = u.mT @ a
        self._inverse_blocks -= u.mT @ u
        self._gram_blocks -= across + across.mT

    def _multiply_out(self) -> None:
        there = self._there.repeat_interleave(self.width)
        u, a = self._u[:, there], self._a[:, there]
        across = u.T @ a
        self._inverse = self._inverse[there][:, there] - u.T @ u
        self._gram = self._gram[there][:, there] - across - across.T
        self._reset()

    def _blocks(self, matrix: torch.Tensor) -> torch.Tensor:
        """The groups' own blocks, (groups, width, width); a copy."""
        count = len(self._groups)
        return matrix.view(count, self.width, count, self.width).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
