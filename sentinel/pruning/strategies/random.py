"""Baseline: importance drawn at random."""

import torch

from sentinel.pruning.calibration import Calibration


def importance(calibration: Calibration) -> list[torch.Tensor]:
    """Uniform in [0, 1), the same for the same seed and counts."""
    generator = torch.Generator().manual_seed(calibration.seed)
    sites = calibration.family.sites(calibration.model)
    return [torch.rand(site.num_groups, generator=generator, dtype=torch.float64) for site in sites]
