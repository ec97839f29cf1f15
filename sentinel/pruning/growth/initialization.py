"""What new groups start from. Every function works on a model in which they are, with output slices of zero.

All but `fit_outputs` leave what the model computes as it is.
"""

import math
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from sentinel.models.evaluation import compare
from sentinel.models.families.base import Unit
from sentinel.models.families.parts import ListPart, Part
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.growth.candidates import Groups
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
def split(module: PruningModule, sources: Mapping[Unit, Mapping[int, Mapping[int, int]]], *, seed: int) -> None:
    """Let each new group be one half of an older one: the same inner weights, and the output shared out.

    What the model computes stays as it was. The outputs' halves differ a little, or both would learn the same for ever
    (Net2Net, 2016).

    Args:
        module: With the new groups in.
        sources: Unit → layer → new group → the group of the same `origin` that it is split off.
        seed: Of how the halves differ.
    """
    generator = torch.Generator().manual_seed(seed)
    for unit, layers in sources.items():
        for layer, pairs in layers.items():
            *inner, output = module.family.parts(module.model, layer, unit)
            for new, source in pairs.items():
                to, of = places(module, unit, layer, [new, source])
                num_groups = len(module.kept[unit][layer])
                for part in inner:
                    _copy(part, of, to, num_groups)
                _share_out(output, of, to, num_groups, generator)


def _copy(part: Part, of: int, to: int, num_groups: int) -> None:
    source, target = (part.features([group], num_groups=num_groups) for group in (of, to))
    if isinstance(part, ListPart):
        for old, new in zip(source.tolist(), target.tolist(), strict=True):
            part.entries[new].load_state_dict(part.entries[old].state_dict())
    for _, value, dim in part.tensors():
        value.index_copy_(dim, target.to(value.device), value.index_select(dim, source.to(value.device)))


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
