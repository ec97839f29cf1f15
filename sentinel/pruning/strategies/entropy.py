"""Diffuse heads go first: a head that looks everywhere selects little. Attention only."""

import math

import torch

from sentinel.models.attention_maps import attention_maps, group_entropies
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance


def rank(calibration: Calibration) -> list[Ranking]:
    """How far a group stays below ln T, the most that H can be in windows of T tokens, in nats; never below 0."""
    widest = math.log(calibration.windows.shape[1])
    return [by_importance(widest - entropies) for entropies in mean_entropies(calibration)]


@torch.no_grad()
def mean_entropies(calibration: Calibration) -> list[torch.Tensor]:
    """Mean over rows of H(row) = −Σ_j p_j ln p_j, in nats, averaged over a group's query heads; (groups,) per site."""
    entropy_sums = [torch.zeros(site.num_groups, dtype=torch.float64) for site in calibration.sites()]
    layers = [site.layer for site in calibration.sites()]
    with attention_maps(calibration.model, calibration.family, layers) as outputs:
        for batch in calibration.batches():
            calibration.model(input_ids=batch, use_cache=False)
            for sums, seen in zip(entropy_sums, outputs, strict=True):
                _, attention_BHTT, *_ = seen.pop()
                sums.add_(group_entropies(attention_BHTT, len(sums)), alpha=len(batch))
    return [sums / len(calibration.windows) for sums in entropy_sums]
