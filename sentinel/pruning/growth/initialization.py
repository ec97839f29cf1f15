"""What new groups start from. Every function works on a model in which they are, with output slices of zero.

All but `fit_outputs` leave what the model computes as it is.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from transformers import PreTrainedModel

from sentinel.models.evaluation import compare
from sentinel.models.families.base import Unit
from sentinel.models.families.parts import ListPart, Part
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.growth.candidates import Groups, Source, Sources
from sentinel.pruning.growth.output_errors import output_errors
from sentinel.pruning.growth.probe import places
from sentinel.pruning.pruning_module import PruningModule

# Shares of the fitted output slices that are tried until one is no better than that before it; at 0 they are silent.
SHARES = (0.0, *(2.0**-k for k in range(7, -1, -1)))
# Of a split: the halves differ by this share of the weight's spread, so that they can learn different things.
APART = 0.1


@torch.no_grad()
def freshen(module: PruningModule, groups: Groups, *, seed: int) -> None:
    """Draw the inner weights of new groups anew, as the class does when it starts; the output stays zero."""
    generator = torch.Generator().manual_seed(seed)
    std: float = getattr(module.model.config, "initializer_range", 0.02)
    for unit, layer, at in _each(module, groups):
        num_groups = len(module.kept[unit][layer])
        for part in module.family.parts(module.model, layer, unit)[:-1]:
            features = part.features(at, num_groups=num_groups)
            for name, value, dim in part.tensors():
                if name == "bias":
                    value.index_fill_(dim, features.to(value.device), 0)
                elif value.ndim > 1:
                    shape = list(value.shape)
                    shape[dim] = len(features)
                    drawn = torch.normal(0.0, std, shape, generator=generator).to(value)
                    value.index_copy_(dim, features.to(value.device), drawn)


@torch.no_grad()
def copy_inner(module: PruningModule, groups: Groups, sources: Sources) -> None:
    """Give new groups the inner weights of those that they start from; the output stays zero.

    Args:
        module: With the new groups in.
        groups: Which; those without a source are left as they are.
        sources: What they start from: groups of the same shape in a layer of the same build.
    """
    for unit, layer, source in _started(groups, sources):
        *inner, _ = module.family.parts(module.model, layer, unit)
        *others, _ = module.family.parts(module.model, source.layer, unit)
        to = places(module, unit, layer, list(source.groups))
        of = places(module, unit, source.layer, list(source.groups.values()))
        here, there = (len(module.kept[unit][at]) for at in (layer, source.layer))
        for part, other in zip(inner, others, strict=True):
            _copy(other, other.features(of, num_groups=there), part, part.features(to, num_groups=here))


def _copy(old: Part, of: torch.Tensor, new: Part, to: torch.Tensor) -> None:
    """Copy the features `of` of one part to the features `to` of another, or of the same."""
    if isinstance(old, ListPart) and isinstance(new, ListPart):
        for source, target in zip(of.tolist(), to.tolist(), strict=True):
            new.entries[target].load_state_dict(old.entries[source].state_dict())
    for (_, source, dim), (_, target, _) in zip(old.tensors(), new.tensors(), strict=True):
        target.index_copy_(dim, to.to(target.device), source.index_select(dim, of.to(source.device)).to(target))


@torch.no_grad()
def split(module: PruningModule, groups: Groups, sources: Sources, *, seed: int) -> None:
    """Let each new group be one half of an older one: the same inner weights, and the output shared out.

    What the model computes stays as it was. The outputs' halves differ a little, or both would learn the same for ever
    (Net2Net, 2016).

    Args:
        module: With the new groups in.
        groups: Which.
        sources: What they are split off: groups of the same layer and of the same `origin`.
        seed: Of how the halves differ.
    """
    copy_inner(module, groups, sources)
    generator = torch.Generator().manual_seed(seed)
    for unit, layer, source in _started(groups, sources):
        output = module.family.parts(module.model, layer, unit)[-1]
        for pair in source.groups.items():
            to, of = places(module, unit, layer, pair)
            _share_out(output, of, to, len(module.kept[unit][layer]), generator)


def _started(groups: Groups, sources: Sources) -> Iterator[tuple[Unit, int, Source]]:
    """Unit, layer, and what those of the layer's new groups that have a source start from."""
    for unit, layers in groups.items():
        for layer, chosen in layers.items():
            if source := sources.get(unit, {}).get(layer):
                yield unit, layer, Source(source.layer, {group: source.groups[group] for group in chosen})


def _share_out(output: Part, of: int, to: int, num_groups: int, generator: torch.Generator) -> None:
    for name, value, dim in output.tensors():
        if name != "weight":
            continue
        source, target = (output.features([group], num_groups=num_groups).to(value.device) for group in (of, to))
        whole = value.index_select(dim, source)
        apart = APART * whole.std() * torch.randn(whole.shape, generator=generator).to(whole)
        value.index_copy_(dim, source, whole / 2 + apart)
        value.index_copy_(dim, target, whole / 2 - apart)


def fit_outputs(
    module: PruningModule, groups: Groups, dense: PreTrainedModel, windows: torch.Tensor, *, seed: int
) -> None:
    """Give new groups the output slices that lower the divergence from the dense model the most, as far as they do.

    The slices of a layer are fitted together (`output_errors`) on half of the windows. The curvature along them is
    larger than on the average, so that they go too far; the share of them is taken that is best on the other half of
    the windows, which may be none.

    Args:
        module: With the new groups in, silent.
        groups: Which.
        dense: What should be predicted.
        windows: Training tokens, (windows, sequence_length).
        seed: Of the labels that tell the curvature.
    """
    sets = {
        unit: {layer: [places(module, unit, layer, chosen)] for layer, chosen in layers.items()}
        for unit, layers in groups.items()
    }
    calibration = Calibration(
        model=module.model, family=module.family, units=tuple(groups), windows=windows[::2], seed=seed
    )
    errors = output_errors(calibration, dense, sets)
    slices = {key: error.slices()[0] for key, error in errors.items()}
    held_out = windows[1::2] if len(windows) > 1 else windows
    best, least = 0.0, math.inf
    for share in SHARES:
        _write_outputs(module, groups, {key: share * value for key, value in slices.items()})
        divergence = compare(dense, module.model, held_out).kl_to_dense
        if divergence >= least:
            break
        best, least = share, divergence
    _write_outputs(module, groups, {key: best * value for key, value in slices.items()})


@torch.no_grad()
def _write_outputs(module: PruningModule, groups: Groups, slices: Mapping[tuple[Unit, int], torch.Tensor]) -> None:
    for unit, layer, at in _each(module, groups):
        output = module.family.parts(module.model, layer, unit)[-1]
        features = output.features(at, num_groups=len(module.kept[unit][layer]))
        for name, value, dim in output.tensors():
            if name == "weight":
                slice_OI = slices[unit, layer]
                stored = slice_OI if dim == 1 else slice_OI.T
                value.index_copy_(dim, features.to(value.device), stored.to(value))


def _each(module: PruningModule, groups: Groups) -> list[tuple[Unit, int, list[int]]]:
    """Unit, layer, and where the groups are in the layer."""
    return [
        (unit, layer, places(module, unit, layer, chosen))
        for unit, layers in groups.items()
        for layer, chosen in layers.items()
    ]
