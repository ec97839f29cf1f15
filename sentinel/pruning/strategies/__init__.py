"""What computes importance. One short file each, all against one protocol."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.strategies import entropy, magnitude, random, taylor
from sentinel.spec import StrategyName


class Strategy(Protocol):
    """Scores the groups of every site of a model."""

    def __call__(self, calibration: Calibration, /) -> list[torch.Tensor]:
        """One (groups,) tensor per layer on the CPU; higher = keep; comparable across layers."""


STRATEGIES: Mapping[StrategyName, Strategy] = MappingProxyType(
    {
        "random": random.importance,
        "magnitude": magnitude.importance,
        "entropy": entropy.importance,
        "taylor": taylor.importance,
    }
)
