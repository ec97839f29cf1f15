"""Several strategies' opinions, mixed by rank."""

from collections.abc import Mapping, Sequence

import torch

from sentinel.models.families.base import Site
from sentinel.pruning.ranking import Ranking, by_importance


def mix(opinions: Sequence[tuple[float, Sequence[Ranking]]], sites: Sequence[Site]) -> list[Ranking]:
    """Σ_i w_i · rank_i(h) / groups, ranks among all groups of the same unit; 0 is the first to go.

    Args:
        opinions: A weight and one ranking per site, for each strategy.
        sites: The sites, in the same order.
    """
    total = [torch.zeros(site.num_groups, dtype=torch.float64) for site in sites]
    for weight, rankings in opinions:
        for indices in _by_unit(sites).values():
            scores = torch.cat([rankings[index].importance() for index in indices])
            shares = scores.argsort(stable=True).argsort().double() / len(scores)
            parts = shares.split([sites[index].num_groups for index in indices])
            for index, part in zip(indices, parts, strict=True):
                total[index] += weight * part
    return [by_importance(scores) for scores in total]


def _by_unit(sites: Sequence[Site]) -> Mapping[str, list[int]]:
    units: dict[str, list[int]] = {}
    for index, site in enumerate(sites):
        units.setdefault(site.unit, []).append(index)
    return units
