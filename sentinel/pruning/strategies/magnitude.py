"""Baseline: the size of a group's weights."""

import torch

from sentinel.models.families.base import Site
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance


def rank(calibration: Calibration) -> list[Ranking]:
    """Σ ‖W_h‖² over the group's slices of all projections, relative to the mean of the site.

    The scale of weights differs between layers for reasons that have nothing to do with
    importance, so only the share within the site is compared across sites.
    """
    scores = (_squares(calibration, site) for site in calibration.sites())
    tiny = torch.finfo(torch.float64).tiny
    return [by_importance(squares / squares.mean().clamp_min(tiny)) for squares in scores]


def _squares(calibration: Calibration, site: Site) -> torch.Tensor:
    total = torch.zeros(site.num_groups, dtype=torch.float64)
    for part in calibration.family.parts(calibration.model, site.layer, site.unit):
        for name, value, dim in part.tensors():
            if name == "weight":
                per_feature = value.detach().double().square().flatten(1).sum(1 - dim).cpu()
                blocks = per_feature.split([width * site.num_groups for width in part.widths])
                total += sum(block.view(site.num_groups, -1).sum(1) for block in blocks)
    return total
