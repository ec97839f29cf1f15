"""First the layers whose surviving heads have taken over what removed ones did. Attention only."""

import math
from collections.abc import Mapping, Sequence

from sentinel.models.optimized.insertion import origin
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.growth.probe import Gains, Probe
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies.entropy import mean_entropies

# What the dense model's entropies count for beside the gap: so little that they only order what has the same.
WITHIN = 1e-6


def gains(probe: Probe) -> Gains:
    """Mean attention entropy of a layer's heads now, less that of the same heads in the dense model, in nats.

    A head that does the work of two spreads its attention; the dense model shows how far it did by nature. A layer
    without any comes before all others. Within a layer those come first that attended most sharply in the dense model.
    """
    now = _entropies(probe, probe.now)
    dense = _entropies(probe, PruningModule(probe.dense, probe.now.family))
    widest = math.log(probe.windows.shape[1])
    return {
        "attention": {
            layer: _of_layer(groups, now.get(layer, {}), dense[layer], widest=widest)
            for layer, groups in probe.candidates["attention"].items()
        }
    }


def _of_layer(
    groups: Sequence[int], now: Mapping[int, float], dense: Mapping[int, float], *, widest: float
) -> list[float]:
    survivors = [group for group in now if group in dense]
    gap = sum(now[group] - dense[group] for group in survivors) / len(survivors) if survivors else widest
    return [gap - WITHIN * dense[origin(group, len(dense))] for group in groups]


def _entropies(probe: Probe, module: PruningModule) -> dict[int, dict[int, float]]:
    """Layer → group, by its index in the dense model → nats."""
    calibration = Calibration(
        model=module.model, family=module.family, units=("attention",), windows=probe.windows, seed=probe.seed
    )
    return {
        site.layer: dict(zip(module.kept["attention"][site.layer], entropies.tolist(), strict=True))
        for site, entropies in zip(calibration.sites(), mean_entropies(calibration), strict=True)
    }
