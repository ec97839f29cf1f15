"""Baseline: importance drawn at random."""

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance


def rank(calibration: Calibration) -> list[Ranking]:
    """Uniform in [0, 1), the same for the same seed and counts."""
    generator = torch.Generator().manual_seed(calibration.seed)
    return [
        by_importance(torch.rand(site.num_groups, generator=generator, dtype=torch.float64))
        for site in calibration.sites()
    ]
