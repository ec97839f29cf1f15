"""What computes importance. One short file each, all against one protocol."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sentinel.prune_spec import ScoreName, StrategyName
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking
from sentinel.pruning.strategies import (
    ablation,
    combined,
    energy,
    entropy,
    fisher,
    fluctuation,
    learned,
    magnitude,
    obs,
    random,
    taylor,
    wanda,
)

# From a model and its calibration windows to one ranking per site of `calibration.sites()`.
Strategy = Callable[[Calibration], list[Ranking]]

STRATEGIES: Mapping[ScoreName, Strategy] = MappingProxyType(
    {
        "random": random.rank,
        "magnitude": magnitude.rank,
        "entropy": entropy.rank,
        "energy": energy.rank,
        "wanda": wanda.rank,
        "fluctuation": fluctuation.rank,
        "taylor": taylor.rank,
        "fisher": fisher.rank,
        "obs": obs.rank,
        "ablation": ablation.rank,
        "learned": learned.rank,
    }
)


def rank_groups(
    calibration: Calibration, strategy: StrategyName, *, mix: Mapping[ScoreName, float] | None = None
) -> list[Ranking]:
    """Rank the groups of every site; `mix` weighs the strategies that `combined` combines. Without groups, nothing."""
    if not calibration.sites():
        return []
    if strategy == "combined":
        opinions = [(weight, STRATEGIES[name](calibration)) for name, weight in (mix or {}).items()]
        return combined.mix(opinions, calibration.sites())
    return STRATEGIES[strategy](calibration)
