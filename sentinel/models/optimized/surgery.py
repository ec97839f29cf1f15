"""Cuts groups out of a model for good. Which groups is decided elsewhere."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from sentinel.models.families.base import Family, Unit

Removal = Mapping[Unit, Mapping[int, Collection[int]]]


def apply_removal(model: PreTrainedModel, family: Family, removed: Removal) -> None:
    """Remove groups in place; a layer may lose all of them.

    Args:
        model: The model as it is now; parameters of the cut projections are replaced, so an optimiser must be
            made after this.
        family: Where its groups live.
        removed: Unit → layer → groups to remove, by their index in the layer as it is now.

    Raises:
        ValueError: A layer or group is not there. Nothing was cut.
    """
    keep = {unit: _survivors(family.counts(model, unit), layers) for unit, layers in removed.items()}
    for unit, layers in keep.items():
        for layer, groups in layers.items():
            family.keep_groups(model, layer, unit, groups)


def _survivors(counts: list[int], removed: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
    """Layer → groups that stay, of the layers that lose any."""
    return {layer: _left(layer, counts, groups) for layer, groups in removed.items() if groups}


def _left(layer: int, counts: list[int], removed: Collection[int]) -> list[int]:
    if not 0 <= layer < len(counts):
        raise ValueError(f"There is no layer {layer}; the model has {len(counts)}.")
    present = range(counts[layer])
    if strangers := set(removed) - set(present):
        raise ValueError(f"Layer {layer} has {counts[layer]} groups; cannot remove {sorted(strangers)}.")
    return [group for group in present if group not in removed]


@contextmanager
def layer_copy(model: PreTrainedModel, family: Family, layer: int) -> Iterator[nn.Module]:
    """Put a copy in the place of a layer while the context lasts, so that it can be cut and the model is not."""
    original = family.layers(model)[layer]
    stack = next(module for module in model.modules() if isinstance(module, nn.ModuleList) and original in module)
    stack[layer] = copy.deepcopy(original)
    try:
        yield stack[layer]
    finally:
        stack[layer] = original
