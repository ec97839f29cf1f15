"""First the layers that have the smallest share of their groups left."""

import random

from sentinel.models.families.base import Unit
from sentinel.pruning.growth.probe import Gains, Probe


def gains(probe: Probe) -> Gains:
    """−(share of the layer's groups that is there when the candidate comes). Within a layer the order is drawn."""
    draw = random.Random(probe.seed)  # noqa: S311 - no secret
    found: dict[Unit, dict[int, list[float]]] = {}
    for unit, layers in probe.candidates.items():
        for layer, groups in layers.items():
            left, dense = len(probe.now.kept[unit][layer]), probe.now.dense_counts[unit][layer]
            turns = draw.sample(range(len(groups)), len(groups))
            found.setdefault(unit, {})[layer] = [-(left + turn) / dense for turn in turns]
    return found
