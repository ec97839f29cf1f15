"""What a candidate promises. One short file each, all against one protocol."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sentinel.grow_spec import GrowthName
from sentinel.pruning.growth.probe import Gains, Probe
from sentinel.pruning.growth.strategies import balanced, entropy_gap, gradient_sensitivity, random

STRATEGIES: Mapping[GrowthName, Callable[[Probe], Gains]] = MappingProxyType(
    {
        "gradient_sensitivity": gradient_sensitivity.gains,
        "entropy_gap": entropy_gap.gains,
        "balanced": balanced.gains,
        "random": random.gains,
    }
)
