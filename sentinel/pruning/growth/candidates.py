"""Which groups could come into a model. Knows counts, no scores and no weights."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sentinel.models.families.base import Unit
from sentinel.models.optimized.insertion import MOST_GROWTH, origin
from sentinel.pruning.pruning_module import PruningModule

# Unit → layer → groups, by their index in the dense model; those that it never had count on from its number.
Groups = Mapping[Unit, Mapping[int, Sequence[int]]]


class Source(NamedTuple):
    """What the new groups of a layer start from.

    Attributes:
        layer: Where that is; the same layer or another.
        groups: New group → group of `layer`.
    """

    layer: int
    groups: Mapping[int, int]


# Unit → layer → what its new groups start from.
Sources = Mapping[Unit, Mapping[int, Source]]


def removed_groups(module: PruningModule, units: Sequence[Unit]) -> dict[Unit, dict[int, list[int]]]:
    """What the dense model had and this one has not."""
    return {unit: module.removed[unit] for unit in units if module.removed[unit]}


def new_groups(module: PruningModule, number: Mapping[Unit, int]) -> dict[Unit, dict[int, list[int]]]:
    """So many groups of each unit, in each layer as far as it may grow, that the dense model never had."""
    found: dict[Unit, dict[int, list[int]]] = {}
    for unit, wanted in number.items():
        layers = enumerate(zip(module.dense_counts[unit], module.kept[unit], strict=True))
        found[unit] = {
            layer: _next(dense, kept, min(wanted, _room(module, unit, layer)))
            for layer, (dense, kept) in layers
            if dense
        }
    return found


def _room(module: PruningModule, unit: Unit, layer: int) -> int:
    """How many groups may still come to a layer."""
    declared = module.family.dense_count(module.model.config, unit)
    return max(0, MOST_GROWTH * declared - len(module.kept[unit][layer]))


def _next(dense_count: int, kept: Sequence[int], number: int) -> list[int]:
    first = max([dense_count, *(group + 1 for group in kept)])
    return list(range(first, first + number))


def copies_of(module: PruningModule, survivors: Groups) -> dict[Unit, dict[int, Source]]:
    """A new group beside each of some that are there, with the same `origin`, in their order."""
    copies: dict[Unit, dict[int, Source]] = {}
    for unit, layers in survivors.items():
        for layer, groups in layers.items():
            dense_count = module.dense_counts[unit][layer]
            taken = set(module.kept[unit][layer])
            sources = {}
            for group in groups[: _room(module, unit, layer)]:
                copy = origin(group, dense_count) + dense_count
                while copy in taken:
                    copy += dense_count
                taken.add(copy)
                sources[copy] = group
            copies.setdefault(unit, {})[layer] = Source(layer, sources)
    return copies


def paired_with(
    module: PruningModule, survivors: Groups, pairs: Mapping[Unit, Mapping[int, int]]
) -> dict[Unit, dict[int, Source]]:
    """A removed group for each of some that are there in the paired layer, in their order, as far as there are any.

    Args:
        module: What the groups are removed from.
        survivors: Unit → layer → groups to start from, the first ones first.
        pairs: Unit → layer → its pair; layers without one are absent, and so they are from what is found.
    """
    found: dict[Unit, dict[int, Source]] = {}
    for unit, of_unit in survivors.items():
        for layer, removed in module.removed[unit].items():
            pair = pairs[unit].get(layer)
            if pair is not None and of_unit.get(pair):
                found.setdefault(unit, {})[layer] = Source(pair, dict(zip(removed, of_unit[pair], strict=False)))
    return found
