"""What a family tells about an architecture: which slices of which tensors make up a group.

Knows how a group's slices are found, cut and widened once a family has named the projections.
Knows no architecture and no forward pass.

Legend: a projection maps `in` features to `out` features; its weight is read as (out x in)
whatever way its class stores it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

Side = Literal["in", "out"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """The groups of one unit in one layer.

    Attributes:
        unit: Kind of group, e.g. `attention`.
        layer: Index of the decoder layer.
        num_groups: Groups the layer has now.
        group_width: Columns of the output projection's input that belong to one group; they are contiguous.
        output: The output projection.
    """

    unit: str
    layer: int
    num_groups: int
    group_width: int
    output: nn.Module


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One projection of which every group owns a slice.

    Attributes:
        module: `nn.Linear` or `Conv1D`.
        side: The features that are sliced: what goes `in` or what comes `out`.
        width: Features per group.
        blocks: How often the groups repeat along the side; 3 for a fused query-key-value projection.
    """

    module: nn.Module
    side: Side
    width: int
    blocks: int = 1

    def features(self, groups: Sequence[int], *, num_groups: int) -> Tensor:
        """Indices of the groups' features along the side, in order, for a layer of `num_groups` groups."""
        blocks = torch.arange(self.blocks)[:, None, None] * num_groups * self.width
        starts = torch.tensor(groups, dtype=torch.long)[None, :, None] * self.width
        return (blocks + starts + torch.arange(self.width)).flatten()

    def tensors(self) -> Iterable[tuple[str, nn.Parameter, int]]:
        """Name, value and sliced dimension of each parameter that the groups share."""
        yield "weight", _parameter(self.module, "weight"), self.weight_dim
        if self.side == "out" and getattr(self.module, "bias", None) is not None:
            yield "bias", _parameter(self.module, "bias"), 0

    @property
    def weight_dim(self) -> int:
        """Dimension of the stored weight that runs along the side."""
        stored_out_first = not isinstance(self.module, Conv1D)
        return 0 if (self.side == "out") == stored_out_first else 1


class Family(Protocol):
    """Where the groups of one architecture live. Counts are always those of the model as it is now.

    Attributes:
        model_types: Values of a config's `model_type` that this family serves.
        architectures: The stock classes.
        remote_module: Modelling file for uneven layers, in `optimized/remote_code`.
    """

    model_types: frozenset[str]
    architectures: frozenset[str]
    remote_module: str

    def check_config(self, config: PreTrainedConfig) -> None:
        """Raise `ModelUnsupported` for a variant whose groups this family cannot separate."""

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers, in order."""
        ...

    def parts(self, model: PreTrainedModel, layer: int) -> Sequence[Part]:
        """The projections of a layer's attention; the last is the output projection."""
        ...

    def keep_groups(self, model: PreTrainedModel, layer: int, keep: Sequence[int]) -> None:
        """Cut every other group of the layer out of the model, in place."""
        ...

    def head_dim(self, config: PreTrainedConfig) -> int:
        """Features of one head."""
        ...

    def queries_per_kv_head(self, config: PreTrainedConfig) -> int:
        """Query heads that read one KV head."""
        ...

    def dense_count(self, config: PreTrainedConfig) -> int:
        """KV heads per layer that the config declares for the whole model."""
        ...

    def layer_overrides(self, config: PreTrainedConfig, count: int) -> dict[str, int]:
        """What `per_layer_config` says of a layer with `count` groups."""
        ...

    def count_of(self, overrides: Mapping[str, int]) -> int:
        """Groups of a layer, from what `per_layer_config` says of it."""
        ...

    def stock_config(self, config: PreTrainedConfig, count: int) -> PreTrainedConfig:
        """A config with `count` groups in every layer that a stock class builds from.

        Raises:
            ExportImpossible: No stock class can express it.
        """
        ...

    def sites(self, model: PreTrainedModel) -> list[Site]:
        """The attention site of each layer, in order."""
        return [_site(layer, self.parts(model, layer)) for layer in range(len(self.layers(model)))]

    def counts(self, model: PreTrainedModel) -> list[int]:
        """Groups per layer."""
        return [site.num_groups for site in self.sites(model)]

    def group_weights(self, model: PreTrainedModel, layer: int, group: int) -> list[Tensor]:
        """The group's slice of each weight (no biases), in the order of `parts`; copies, detached."""
        parts = self.parts(model, layer)
        num_groups = _site(layer, parts).num_groups
        return [_slice(part, [group], num_groups=num_groups) for part in parts]


def widen_groups(part: Part, kept: Sequence[int], *, num_groups: int) -> dict[str, Tensor]:
    """The part's tensors at dense size, its groups at the places `kept`, zeros elsewhere; the model is left alone."""
    features = part.features(kept, num_groups=num_groups)
    dense_size = part.blocks * num_groups * part.width
    widened = {}
    for name, value, dim in part.tensors():
        shape = list(value.shape)
        shape[dim] = dense_size
        widened[name] = value.new_zeros(shape).index_copy(dim, features.to(value.device), value.detach())
    return widened


def cut_groups(parts: Sequence[Part], keep: Sequence[int]) -> None:
    """Keep only the named groups in every part, in the order given; parameters are replaced.

    Raises:
        ValueError: `keep` is empty, repeats a group or names one that is not there.
    """
    num_groups = _site(0, parts).num_groups
    if not keep or len(set(keep)) != len(keep) or not set(keep) <= set(range(num_groups)):
        raise ValueError(f"Cannot keep groups {list(keep)} of a layer with {num_groups}.")
    for part in parts:
        features = part.features(keep, num_groups=num_groups)
        for name, old, dim in list(part.tensors()):
            kept = old.detach().index_select(dim, features.to(old.device))
            setattr(part.module, name, nn.Parameter(kept, requires_grad=old.requires_grad))
        _declare_size(part, len(features))


def output_weight(site: Site) -> Tensor:
    """The output projection's weight as (out x in); a view, so writing to it changes the model."""
    weight = _parameter(site.output, "weight")
    return weight.T if isinstance(site.output, Conv1D) else weight


def output_bias(site: Site) -> Tensor | None:
    """The output projection's bias (out,), or None where it has none."""
    bias: Tensor | None = getattr(site.output, "bias", None)
    return bias


@torch.no_grad()
def set_output(site: Site, *, weight: Tensor, bias: Tensor | None) -> None:
    """Overwrite the output projection: weight (out x in), bias (out,) or None to leave it alone.

    Raises:
        ValueError: A bias is given and the projection has none.
    """
    output_weight(site).copy_(weight)
    if bias is None:
        return
    own_bias = output_bias(site)
    if own_bias is None:
        raise ValueError(f"The output projection of layer {site.layer} has no bias to set.")
    own_bias.copy_(bias)


def _site(layer: int, parts: Sequence[Part]) -> Site:
    output = parts[-1]
    num_groups = _parameter(output.module, "weight").shape[output.weight_dim] // output.width
    return Site(unit="attention", layer=layer, num_groups=num_groups, group_width=output.width, output=output.module)


def _slice(part: Part, groups: Sequence[int], *, num_groups: int) -> Tensor:
    weight = _parameter(part.module, "weight").detach()
    return weight.index_select(part.weight_dim, part.features(groups, num_groups=num_groups).to(weight.device))


def _declare_size(part: Part, size: int) -> None:
    """Let the module's printed sizes tell the truth; its forward pass reads only the weight (and `nf`)."""
    names = ("nx", "nf") if isinstance(part.module, Conv1D) else ("in_features", "out_features")
    setattr(part.module, names[part.side == "out"], size)


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    value = getattr(module, name)
    if not isinstance(value, nn.Parameter):
        raise TypeError(f"{type(module).__name__}.{name} is not a plain parameter.")
    return value
