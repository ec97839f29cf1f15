"""A seeded draw: the control that every other growth strategy has to beat."""

import random

from sentinel.pruning.growth.probe import Gains, Probe


def gains(probe: Probe) -> Gains:
    """uniform(0, 1)."""
    draw = random.Random(probe.seed)  # noqa: S311 - no secret
    return {
        unit: {layer: [draw.random() for _ in groups] for layer, groups in layers.items()}
        for unit, layers in probe.candidates.items()
    }
