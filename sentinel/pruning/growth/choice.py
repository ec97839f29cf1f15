"""Takes the candidates that promise most. Knows gains and blocks, no model."""

from collections.abc import Mapping, Sequence

from sentinel.models.families.base import Unit
from sentinel.pruning.growth.candidates import Groups
from sentinel.pruning.growth.probe import Gains


def choose(
    candidates: Groups, gains: Gains, *, number: Mapping[Unit, int], block: Mapping[Unit, int]
) -> dict[Unit, dict[int, list[int]]]:
    """The best `number` groups of each unit, fewer where there are no more, whole blocks of a layer at a time.

    Args:
        candidates: Unit → layer → groups.
        gains: The same shape; a block promises what its groups do together.
        number: Unit → how many, a multiple of its block.
        block: Unit → groups that come together: the best of their layer, the next best, and so on.
    """
    chosen: dict[Unit, dict[int, list[int]]] = {}
    for unit, layers in candidates.items():
        blocks = [
            (promised, layer, groups)
            for layer in layers
            for promised, groups in _blocks(layers[layer], gains[unit][layer], block[unit])
        ]
        best = sorted(blocks, key=lambda b: (-b[0], b[1]))[: number[unit] // block[unit]]
        for _, layer, groups in best:
            chosen.setdefault(unit, {}).setdefault(layer, []).extend(groups)
    return chosen


def _blocks(groups: Sequence[int], gains: Sequence[float], size: int) -> list[tuple[float, list[int]]]:
    """Groups by falling gain, cut into whole blocks, each with its gain."""
    order = sorted(range(len(groups)), key=lambda i: (-gains[i], i))
    whole = range(0, len(order) - size + 1, size)
    return [(sum(gains[i] for i in order[at : at + size]), [groups[i] for i in order[at : at + size]]) for at in whole]
