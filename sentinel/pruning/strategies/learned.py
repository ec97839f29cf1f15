"""Gates are learnt with frozen weights while ever fewer may be open: those that stay open longest matter most."""

from collections.abc import Iterator

import torch

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.hard_concrete import open_probability
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.utils.metrics import kl_divergences

# Steps from all gates open to all but closed, windows per step at most, and how far log α goes in one (rms).
STEPS, WINDOWS, RATE = 40, 8, 0.3


def rank(calibration: Calibration) -> list[Ranking]:
    """The mean over the steps of P(gate ≠ 0), 0 to 1, which compares across the sites of a unit.

    KL(dense ‖ gated) is made smaller while the expected L0 norm falls from all groups to none: hard concrete gates
    (Louizos et al. 2018), of which every window draws its own. So a group is judged among as many others as would
    be left beside it. Memory is activations of as many windows as a step has.
    """
    adaptive = AdaptiveModel(calibration.model, calibration.family, units=calibration.units, kind="learnable")
    generator = torch.Generator().manual_seed(calibration.seed)
    opened = [torch.zeros(site.num_groups, dtype=torch.float64) for site in adaptive.sites]
    for step, batch in enumerate(_batches(calibration, generator), start=1):
        with torch.no_grad():
            dense = calibration.model(input_ids=batch, use_cache=False).logits
        with torch.enable_grad(), adaptive, adaptive.sampled(generator):
            gated = calibration.model(input_ids=batch, use_cache=False).logits
            adaptive.learn(kl_divergences(dense, gated).mean(), open_share=1 - step / STEPS, rate=RATE)
        for total, log_alpha in zip(opened, adaptive.log_alphas, strict=True):
            total.add_(open_probability(log_alpha.detach()).double().cpu(), alpha=1 / STEPS)
    return [by_importance(importance) for importance in opened]


def _batches(calibration: Calibration, generator: torch.Generator) -> Iterator[torch.Tensor]:
    count, length = calibration.windows.shape
    # Half a batch at most, as a backward pass needs what a forward pass drops.
    size = max(1, min(WINDOWS, count, FORWARD_TOKENS // 2 // length))
    for _ in range(STEPS):
        chosen = torch.randint(count, (size,), generator=generator)
        yield calibration.windows[chosen.to(calibration.windows.device)]
