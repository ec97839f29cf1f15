"""Cuts groups out of a model for good. Which groups is decided elsewhere."""

from collections.abc import Collection, Mapping

from transformers import PreTrainedModel

from sentinel.models.families.base import Family


def apply_removal(model: PreTrainedModel, family: Family, removed: Mapping[int, Collection[int]]) -> None:
    """Remove groups in place.

    Args:
        model: The model as it is now; parameters of the cut projections are replaced, so an optimiser must be
            made after this.
        family: Where its groups live.
        removed: Layer → groups to remove, by their index in the layer as it is now.

    Raises:
        ValueError: A layer or group is not there, or a layer would be left without any. Nothing was cut.
    """
    counts = family.counts(model)
    keep = {layer: _survivors(layer, counts, groups) for layer, groups in removed.items()}
    for layer, groups in keep.items():
        if len(groups) < counts[layer]:
            family.keep_groups(model, layer, groups)


def _survivors(layer: int, counts: list[int], removed: Collection[int]) -> list[int]:
    if not 0 <= layer < len(counts):
        raise ValueError(f"There is no layer {layer}; the model has {len(counts)}.")
    present = range(counts[layer])
    if strangers := set(removed) - set(present):
        raise ValueError(f"Layer {layer} has {counts[layer]} groups; cannot remove {sorted(strangers)}.")
    survivors = [group for group in present if group not in removed]
    if not survivors:
        raise ValueError(f"Layer {layer} would be left without any group.")
    return survivors
