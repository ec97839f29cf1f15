"""What the strategies share that need only the moments of each output projection's input.

One forward pass, layer by layer: a layer's moments are dropped as soon as its groups are ranked.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby

import torch

from sentinel.models.families.base import Site, output_bias, output_weight
from sentinel.pruning.calibration import Calibration, LayerwisePass, inputs_of
from sentinel.pruning.least_squares import gram
from sentinel.pruning.ranking import Ranking, by_importance

# Of a site without groups.
NOTHING = by_importance(torch.zeros(0))


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteStatistics:
    """One site as the closed forms see it. Shapes: in = num_groups × group_width.

    Attributes:
        weight: W, (out, in), float64.
        second: C = E[x xᵀ], (in, in), float64.
        mean: μ = E[x], (in,), float64.
        has_bias: Whether the projection has a bias, which can make up for a changed mean.
        num_groups: Groups of the site.
    """

    weight: torch.Tensor
    second: torch.Tensor
    mean: torch.Tensor
    has_bias: bool
    num_groups: int

    @property
    def covariance(self) -> torch.Tensor:
        """Σ = C − μμᵀ, (in, in)."""
        return self.second - torch.outer(self.mean, self.mean)

    def per_group(self, columns: torch.Tensor) -> torch.Tensor:
        """Sum an (in,) value over the columns of each group."""
        return columns.view(self.num_groups, -1).sum(1)


def rank_sites(calibration: Calibration, rank: Callable[[SiteStatistics], Ranking]) -> list[Ranking]:
    """Rank every site by its statistics, in one pass over the calibration windows."""
    layerwise = LayerwisePass(calibration)
    rankings: list[Ranking] = []
    for layer, sites in groupby(calibration.sites(), key=lambda site: site.layer):
        moments = [_Moments(site) for site in sites]
        _gather(calibration, layerwise, layer, moments)
        rankings += [rank(sums.statistics()) if sums.site.num_groups else NOTHING for sums in moments]
    return rankings


def _gather(calibration: Calibration, layerwise: LayerwisePass, layer: int, moments: "list[_Moments]") -> None:
    """Carry the pass through one layer; of the last, no further than its last site with groups."""
    there = [sums for sums in moments if sums.site.num_groups]
    with ExitStack() as stack:
        for sums in there:
            stack.enter_context(inputs_of(sums.site.output, sums.add))
        if layer + 1 < len(calibration.family.layers(calibration.model)):
            layerwise.run(layer)
        elif there:
            layerwise.run_to(layer, there[-1].site.output, lambda _, __: None)


def slice_energies(weight: torch.Tensor, second: torch.Tensor, num_groups: int) -> torch.Tensor:
    """tr(W_h C_hh W_hᵀ) for every group, (groups,): the output energy of each slice."""
    width = weight.shape[1] // num_groups
    blocks = second.view(num_groups, width, num_groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    slices = weight.view(-1, num_groups, width)
    return torch.einsum("ohi,hij,ohj->h", slices, blocks, slices)


class _Moments:
    """Sums of x and x xᵀ over calibration tokens: products in float32 at least, sums in float64."""

    def __init__(self, site: Site) -> None:
        self.site = site
        width, device = site.num_groups * site.group_width, output_weight(site).device
        self._second = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        rows = inputs.detach().flatten(0, -2)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        self._second += gram(rows)
        self._sum += rows.sum(0, dtype=torch.float64)
        self._tokens += len(rows)

    def statistics(self) -> SiteStatistics:
        return SiteStatistics(
            weight=output_weight(self.site).detach().double(),
            second=self._second / self._tokens,
            mean=self._sum / self._tokens,
            has_bias=output_bias(self.site) is not None,
            num_groups=self.site.num_groups,
        )
