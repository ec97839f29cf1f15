"""What those share that need only the moments of each output projection's input.

One forward pass, layer by layer: a layer's moments are dropped as soon as its groups are judged.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch

from sentinel.models.families.base import Site, output_bias, output_weight
from sentinel.models.hooks import inputs_of
from sentinel.pruning.calibration import Calibration, LayerwisePass
from sentinel.pruning.least_squares import gram, rows_of

T = TypeVar("T")


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


def from_statistics(calibration: Calibration, judge: Callable[[SiteStatistics], T]) -> list[T]:
    """What `judge` makes of every site, in one pass over the calibration windows."""
    layerwise = LayerwisePass(calibration)
    sites = calibration.sites()
    judged: list[T] = []
    last = max((site.layer for site in sites), default=-1)
    for layer in range(last + 1):
        moments = [_Moments(site) for site in sites if site.layer == layer]
        with ExitStack() as stack:
            for sums in moments:
                stack.enter_context(inputs_of(sums.site.output, sums.add))
            if layer < last:
                layerwise.run(layer)
            else:  # no further than the last site
                layerwise.run_to(layer, sites[-1].output, lambda _, __: None)
        judged += [judge(sums.statistics()) for sums in moments]
    return judged


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
        rows = rows_of(inputs)
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
