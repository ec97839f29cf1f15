"""What a family tells about an architecture: which slices of which tensors make up a group.

Knows what follows once a family has named the modules (see `parts`): counts, surgery, configs.
Knows no architecture and no forward pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sentinel.errors import ExportImpossible
from sentinel.models.families.adaptations import adapt
from sentinel.models.families.parts import Part, cut_groups, num_groups_of, parameter

__all__ = ["UNITS", "Family", "Part", "Site", "Unit", "output_bias", "output_weight", "set_output"]

Unit = Literal["attention", "mlp"]
# In the order in which a layer computes them, where it computes one after the other.
UNITS: tuple[Unit, ...] = ("attention", "mlp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """The groups of one unit in one layer.

    Attributes:
        unit: Kind of group.
        layer: Index of the decoder layer.
        num_groups: Groups the layer has now.
        group_width: Columns of the output projection's input that belong to one group; they are contiguous.
        group_parameters: Weights and biases that one group owns.
        output: The output projection.
    """

    unit: Unit
    layer: int
    num_groups: int
    group_width: int
    group_parameters: int
    output: nn.Module


class Family(ABC):
    """Where the groups of one architecture live. Counts are always those of the model as it is now.

    Attributes:
        model_types: Values of a config's `model_type` that this family serves.
        architectures: The stock classes.
        heads_key: The config's name for the number of query heads.
        kv_heads_key: The same for KV heads; None where every head has its own keys and values.
        neurons_key: The same for the neurons of the MLP; None where the stock class derives their number.
        explicit_head_dim: Whether the config says the size of a head; if not, the stock class derives it
            from the number of heads, and cannot express another number.
    """

    model_types: frozenset[str]
    architectures: frozenset[str]
    heads_key: str = "num_attention_heads"
    kv_heads_key: str | None = "num_key_value_heads"
    neurons_key: str | None = "intermediate_size"
    explicit_head_dim: bool = True

    def check_config(self, config: PreTrainedConfig) -> None:  # noqa: B027 - most families have nothing to add
        """Raise `ModelUnsupported` for a variant whose groups this family cannot separate."""

    @abstractmethod
    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers, in order."""

    @abstractmethod
    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """The modules that a layer's groups share; the last is the output projection."""

    def parts_of_last(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:  # noqa: ARG002 - most classes have none
        """What stays whole as long as a layer has a group left, and goes with the last one."""
        return ()

    def after_cut(  # noqa: B027 - most classes read everything off their tensors' shapes
        self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]
    ) -> None:
        """Tell a layer whose tensors were just cut to `keep` whatever it does not read off their shapes."""

    def keep_groups(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Cut every other group of the layer out of the model, in place; parameters are replaced.

        A group that is named twice is there twice. With nothing to keep, what is left of the unit is the bias of its
        output projection, where it has one.

        Raises:
            ValueError: `keep` names a group that is not there.
        """
        cut_groups(self.parts(model, layer, unit), keep)
        self.after_cut(model, layer, unit, keep)
        if not keep:
            self.without_groups(model, layer, unit)

    def without_groups(self, model: PreTrainedModel, layer: int, unit: Unit) -> None:
        """Make a layer work whose last group of the unit was just cut; a `Linear` without inputs gives its bias."""
        output = self.parts(model, layer, unit)[-1].module
        if isinstance(output, Conv1D):
            adapt(output, "NoInputs")
        if unit == "attention":
            attention, name = _parent(self.layers(model)[layer], output)
            adapt(attention, "NoAttention", output=name)

    def site(self, model: PreTrainedModel, layer: int, unit: Unit) -> Site:
        """One layer's groups of one unit."""
        parts = self.parts(model, layer, unit)
        (width,) = parts[-1].widths
        num_groups = num_groups_of(parts)
        return Site(
            unit=unit,
            layer=layer,
            num_groups=num_groups,
            group_width=width,
            group_parameters=sum(part.size() for part in parts) // max(num_groups, 1),
            output=parts[-1].module,
        )

    def sites(self, model: PreTrainedModel, units: Iterable[Unit] = UNITS) -> list[Site]:
        """The sites of the units, in the order in which the model computes them."""
        wanted = [unit for unit in UNITS if unit in set(units)]
        return [self.site(model, layer, unit) for layer in range(len(self.layers(model))) for unit in wanted]

    def counts(self, model: PreTrainedModel, unit: Unit) -> list[int]:
        """Groups per layer."""
        return [site.num_groups for site in self.sites(model, [unit])]

    def group_weights(self, model: PreTrainedModel, site: Site, group: int) -> list[Tensor]:
        """The group's slice of each weight (no biases), in the order of `parts`; copies, detached."""
        parts = self.parts(model, site.layer, site.unit)
        return [part.weight_of(group, num_groups=site.num_groups) for part in parts]

    def attention(self, model: PreTrainedModel, layer: int) -> nn.Module:
        """The module that a layer's attention output projection belongs to."""
        return _parent(self.layers(model)[layer], self.parts(model, layer, "attention")[-1].module)[0]

    def asking_for_map(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """What the eager attention is to be called with in the place of `keywords`, to hand out its map, too."""
        return {**keywords, "output_attentions": True}

    def head_dim(self, config: PreTrainedConfig) -> int:
        """Features of one head: explicit, or the hidden size shared out among the query heads."""
        return getattr(config, "head_dim", None) or config.hidden_size // getattr(config, self.heads_key)

    def queries_per_kv_head(self, config: PreTrainedConfig) -> int:
        """Query heads that read one KV head; removing whole groups leaves this ratio as it was."""
        heads: int = getattr(config, self.heads_key)
        return heads // self.dense_count(config, "attention")

    def dense_count(self, config: PreTrainedConfig, unit: Unit) -> int:
        """Groups per layer that the config declares for the whole model."""
        if unit == "mlp":
            return self.neurons(config)
        count: int = getattr(config, self.kv_heads_key or self.heads_key)
        return count

    def may_exceed(self, config: PreTrainedConfig, unit: Unit) -> bool:  # noqa: ARG002 - most classes have one answer
        """Whether a layer may have more groups of the unit than the config declares."""
        return True

    def residual_scale(self, config: PreTrainedConfig) -> float | None:  # noqa: ARG002 - most classes have only one answer
        """What a unit's output is multiplied with when it is added to the residual stream.

        None where something else comes between the two, as a norm, or where the units do not add to one stream.
        """
        return 1.0

    def neurons(self, config: PreTrainedConfig) -> int:
        """Intermediate neurons of an MLP that the config declares."""
        assert self.neurons_key is not None  # noqa: S101 - a family without the key overrides this
        count: int = getattr(config, self.neurons_key)
        return count

    def layer_overrides(self, config: PreTrainedConfig, counts: Mapping[Unit, int]) -> dict[str, Any]:
        """What `per_layer_config` says of a layer with these counts, where they differ from the config's."""
        overrides: dict[str, Any] = {}
        if (groups := counts["attention"]) == 0:
            overrides["skip"] = ["attention"]
        elif groups != self.dense_count(config, "attention"):
            overrides[self.heads_key] = groups * self.queries_per_kv_head(config)
            if self.kv_heads_key:
                overrides[self.kv_heads_key] = groups
        if (neurons := counts["mlp"]) != self.dense_count(config, "mlp"):
            overrides[self.neurons_key or "intermediate_size"] = neurons
        return overrides

    def counts_of(self, config: PreTrainedConfig, overrides: Mapping[str, Any]) -> dict[Unit, int]:
        """Groups of a layer, from what `per_layer_config` says of it."""
        dense_groups = 0 if "attention" in overrides.get("skip", ()) else self.dense_count(config, "attention")
        groups = overrides.get(self.kv_heads_key or self.heads_key, dense_groups)
        neurons = overrides.get(self.neurons_key or "intermediate_size", self.dense_count(config, "mlp"))
        return {"attention": groups, "mlp": neurons}

    def stock_config(self, config: PreTrainedConfig, counts: Mapping[Unit, int]) -> PreTrainedConfig:
        """A config with these counts in every layer that a stock class builds from.

        Raises:
            ExportImpossible: No stock class can express it.
        """
        changes: dict[str, Any] = self.layer_overrides(config, counts)
        if self.heads_key in changes:
            if not self.explicit_head_dim:
                raise ExportImpossible(
                    f"A {config.model_type} model cannot have {changes[self.heads_key]} heads of its head size "
                    "in a stock class."
                )
            changes["head_dim"] = self.head_dim(config)
        if self.neurons_key is None and "intermediate_size" in changes:
            raise ExportImpossible(f"A stock {config.model_type} class cannot have {counts['mlp']} neurons per layer.")
        try:
            return type(config).from_dict({**config.to_dict(), **changes})
        except (StrictDataclassError, ValueError) as refusal:
            raise ExportImpossible(f"The stock {config.model_type} config refuses {changes}: {refusal}") from refusal


def output_weight(site: Site) -> Tensor:
    """The output projection's weight as (out x in); a view, so writing to it changes the model."""
    weight = parameter(site.output, "weight")
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


def _parent(layer: nn.Module, child: nn.Module) -> tuple[nn.Module, str]:
    """The module that `child` is an attribute of, and the attribute's name."""
    return next(
        (module, name) for module in layer.modules() for name, found in module.named_children() if found is child
    )
