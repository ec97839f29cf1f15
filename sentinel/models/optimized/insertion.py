"""Puts groups into a cut model: those of the dense model that it lost, or more than that ever had.

Which groups is decided elsewhere, and so is what a new one starts from. The dense model is cut again, to the groups
that are left and those that come; so whatever a family tells its modules after a cut holds after an insertion, too.
Then everything that the cut model has goes over.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.base import Family, Unit
from sentinel.models.families.parts import ListPart, Part

# A layer may grow to this many times the groups that the config declares; a checkpoint's claim of more is a mistake.
MOST_GROWTH = 4

Groups = Mapping[Unit, Sequence[Sequence[int]]]
Grown = Mapping[Unit, Mapping[int, Sequence[int]]]


def origin(group: int, dense_count: int) -> int:
    """The dense model's group that a group is shaped like: itself or, for those beyond their number, in turn each."""
    return group % dense_count


@torch.no_grad()
def insert_groups(
    model: PreTrainedModel, dense: PreTrainedModel, family: Family, *, kept: Groups, grown: Grown
) -> tuple[PreTrainedModel, dict[Unit, list[list[int]]]]:
    """A model with `grown` put in: the dense model's slices, but for those of the output projection, which are zero.

    So that what the model computes does not change (law 6), and the new groups learn from their removed weights on.
    Groups are named by their index in the dense model. Those that it never had count on from its number, and start
    as their `origin`.

    Args:
        model: The cut model; it is not changed.
        dense: The model that it was cut out of; it is not changed either.
        family: Where their groups live.
        kept: Unit → per layer, the groups that `model` has, ascending.
        grown: Unit → layer → the groups that come.

    Returns:
        The new model, and its `kept`.

    Raises:
        ValueError: A group is there already. Nothing was done.
        ModelUnsupported: A layer of this class cannot have more groups than the dense one. Nothing was done.
    """
    after = {unit: [_joined(unit, i, layer, grown) for i, layer in enumerate(layers)] for unit, layers in kept.items()}
    bigger = copy.deepcopy(dense)
    shared: set[torch.nn.Parameter] = set()
    for unit, layers in after.items():
        counts = family.counts(dense, unit)
        if not family.may_exceed(dense.config, unit) and any(len(g) > n for g, n in zip(layers, counts, strict=True)):
            raise ModelUnsupported(f"A layer of this {dense.config.model_type} model has one {unit} group at most.")
        for layer, groups in enumerate(layers):
            if groups != list(range(counts[layer])):  # a layer that is whole stays of its own class
                family.keep_groups(bigger, layer, unit, [origin(group, counts[layer]) for group in groups])
            places = [groups.index(group) for group in kept[unit][layer]]
            parts = family.parts(bigger, layer, unit)
            shared.update(parameter for part in parts for parameter in _parameters(part))
            if places:
                for new, old in zip(parts, family.parts(model, layer, unit), strict=True):
                    _copy_groups(new, old, places, num_groups=len(groups))
            _silence(parts[-1], sorted(set(range(len(groups))) - set(places)), len(groups))
    others = dict(model.named_parameters())
    for name, parameter in bigger.named_parameters():
        # A layer that had lost all its groups may have lost with them what is not of any one group.
        if parameter not in shared and parameter.shape == others[name].shape:
            parameter.copy_(others[name])
    return bigger, after


def _joined(unit: Unit, layer: int, left: Sequence[int], grown: Grown) -> list[int]:
    new = grown.get(unit, {}).get(layer, ())
    if len({*left, *new}) != len(left) + len(new):
        raise ValueError(f"Layer {layer} has some of the {unit} groups {sorted(new)} already.")
    return sorted((*left, *new))


def _parameters(part: Part) -> list[torch.nn.Parameter]:
    """Those that groups share or own."""
    if isinstance(part, ListPart):
        return [parameter for entry in part.entries for parameter in entry.parameters()]
    return [value for _, value, _ in part.tensors()]


def _copy_groups(new: Part, old: Part, places: Sequence[int], *, num_groups: int) -> None:
    """Copy all groups of a part to their places in another."""
    features = new.features(places, num_groups=num_groups)
    if isinstance(new, ListPart) and isinstance(old, ListPart):
        for place, entry in zip(features.tolist(), old.entries, strict=True):
            new.entries[place].load_state_dict(entry.state_dict())
    for (_, value, dim), (_, source, _) in zip(new.tensors(), old.tensors(), strict=True):
        value.index_copy_(dim, features.to(value.device), source.to(value))


def _silence(output: Part, groups: Sequence[int], num_groups: int) -> None:
    for name, value, dim in output.tensors():
        if name == "weight":
            value.index_fill_(dim, output.features(groups, num_groups=num_groups).to(value.device), 0)
