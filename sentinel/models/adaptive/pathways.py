"""Skip pathways: where a group that comes back gets its weights from, and how its gate opens. Inserts nothing.

Layers are paired as in a U-Net: the first with the last, the second with the last but one.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.families.base import Family, Unit


def paired_layer(layer: int, num_layers: int) -> int:
    """The layer at the other end, l ↔ L − 1 − l.

    Raises:
        ValueError: There is no such layer, or it lies in the middle and is its own pair.
    """
    if not 0 <= layer < num_layers:
        raise ValueError(f"There is no layer {layer}; the model has {num_layers}.")
    if (pair := num_layers - 1 - layer) == layer:
        raise ValueError(
            f"Layer {layer} is the middle one of {num_layers} and has no pair; take a removed group's weights."
        )
    return pair


def pairs(model: PreTrainedModel, family: Family, unit: Unit) -> dict[int, int]:
    """Layer → its pair, of the layers that have one and could have its groups.

    Args:
        model: With groups in every layer, as a dense one has them.
        family: Where they live.
        unit: Kind of group.
    """
    num_layers = len(family.layers(model))
    others = [layer for layer in range(num_layers) if 2 * layer + 1 != num_layers]
    found = {layer: paired_layer(layer, num_layers) for layer in others}
    return {layer: pair for layer, pair in found.items() if _could_have(model, family, unit, layer, pair)}


def _could_have(model: PreTrainedModel, family: Family, unit: Unit, layer: int, pair: int) -> bool:
    here, there = family.site(model, layer, unit), family.site(model, pair, unit)
    if not (here.num_groups and there.num_groups):
        return False
    slices, parts = family.group_weights(model, there, 0), family.parts(model, layer, unit)
    return len(parts) == len(slices) and all(part.fits(piece) for part, piece in zip(parts, slices, strict=True))


def paired_weights(model: PreTrainedModel, family: Family, unit: Unit, layer: int, group: int) -> list[Tensor]:
    """A group's weights from the paired layer: what a group that grows in `layer` can start from.

    Args:
        model: The model that they are taken from; it is not changed.
        family: Where its groups live.
        unit: Kind of group.
        layer: Where the new group shall be.
        group: Which group of the paired layer, by its index there as it is now.

    Returns:
        Its slice of every weight, in the order of `Family.parts`, as `Family.group_weights`; copies.

    Raises:
        ValueError: The layer has no pair, the pair has no such group, or its slices have other shapes than those of
            `layer`, as where one attends globally and the other has smaller heads.
    """
    pair = paired_layer(layer, len(family.layers(model)))
    source = family.site(model, pair, unit)
    if not 0 <= group < source.num_groups:
        raise ValueError(
            f"Layer {pair}, the pair of layer {layer}, has {source.num_groups} {unit} groups, not one of index {group}."
        )
    slices = family.group_weights(model, source, group)
    # What a layer without groups has beside these comes before them, and is of no one group.
    parts = family.parts(model, layer, unit)[-len(slices) :]
    for part, piece in zip(parts, slices, strict=True):
        if not part.fits(piece):
            raise ValueError(
                f"A group of layer {layer} cannot have a slice of shape {tuple(piece.shape)}, as one of layer {pair} "
                "has; take a removed group's weights."
            )
    return slices


def warm_up(adaptive: AdaptiveModel, unit: Unit, layer: int, groups: Sequence[int], *, step: int, steps: int) -> float:
    """Set the gates of groups that have just come in to min(1, step / steps), and say to what.

    At step 0 they are closed, so that the groups change no logit whatever their weights are.

    Args:
        adaptive: Soft or learnable gates; of learnable ones the start is set anew at every call.
        unit: Kind of the groups.
        layer: Where they are.
        groups: Which, by their index in the layer as it is now.
        step: Steps since they came in.
        steps: When they are open.

    Raises:
        ValueError: There are no such gates, they are hard ones, or the steps are no steps.
    """
    if steps < 1 or step < 0:
        raise ValueError(f"A gate cannot be at step {step} of {steps}.")
    value = min(1.0, step / steps)
    adaptive.set(unit, layer, dict.fromkeys(groups, value))
    return value
