"""Weights times the size of what they are multiplied with."""

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics


def rank(calibration: Calibration) -> list[Ranking]:
    """Σ_ij |W_ij| √C_jj over the group's slice (Sun et al. 2023), as a share of the site so that layers compare."""
    return from_statistics(calibration, _rank)


def _rank(site: SiteStatistics) -> Ranking:
    scores = site.per_group(site.weight.abs().sum(0) * site.second.diagonal().sqrt())
    return by_importance(scores / scores.sum().clamp_min(torch.finfo(scores.dtype).tiny))
