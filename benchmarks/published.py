"""FLAP (An et al. 2023) from this library's parts: its score, its allocation over layers and its bias."""

import torch
from torch import nn
from transformers import PreTrainedModel

from sentinel.models.families.base import Family, Site, Unit, output_bias
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics


def cut_as_flap(
    model: PreTrainedModel, family: Family, windows: torch.Tensor, unit: Unit, removed: int
) -> PreTrainedModel:
    """Cut `removed` groups of a unit out of `model`, in place, and add W_S μ_S to the bias of each output projection.

    Score Σ_j Σ_jj ‖W_:j‖² over a group's columns, standardised within each layer, the lowest go anywhere; one group
    is left in every layer.
    """
    calibration = Calibration(model=model, family=family, units=[unit], windows=windows, seed=0)
    statistics: list[SiteStatistics] = []
    rankings = from_statistics(calibration, lambda site: _standardised(site, statistics))
    chosen = _lowest([ranking.importance() for ranking in rankings], removed)
    for site, groups, seen in zip(calibration.sites(), chosen, statistics, strict=True):
        if groups:
            _cut(calibration, site, groups, seen)
    return model


def _standardised(site: SiteStatistics, seen: list[SiteStatistics]) -> Ranking:
    seen.append(site)
    scores = site.per_group(site.covariance.diagonal() * site.weight.square().sum(0))
    return by_importance((scores - scores.mean()) / scores.std())


def _lowest(scores: list[torch.Tensor], removed: int) -> list[list[int]]:
    chosen: list[list[int]] = [[] for _ in scores]
    places = [(float(score), site, group) for site, some in enumerate(scores) for group, score in enumerate(some)]
    for _, site, group in sorted(places):
        if removed > 0 and len(chosen[site]) + 1 < len(scores[site]):
            chosen[site].append(group)
            removed -= 1
    return chosen


def _cut(calibration: Calibration, site: Site, groups: list[int], statistics: SiteStatistics) -> None:
    columns = torch.zeros(site.num_groups, dtype=torch.bool)
    columns[groups] = True
    columns = columns.repeat_interleave(site.group_width)
    bias = (statistics.weight[:, columns] @ statistics.mean[columns]).float()
    kept = [group for group in range(site.num_groups) if group not in groups]
    calibration.family.keep_groups(calibration.model, site.layer, site.unit, kept)
    before = output_bias(site)
    site.output.register_parameter("bias", nn.Parameter(bias if before is None else before + bias))
