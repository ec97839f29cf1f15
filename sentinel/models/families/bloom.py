"""BLOOM: multi-head attention with one fused projection and ALiBi, whose slopes belong to the heads' places.

A cut attention picks the slopes of the heads that it kept out of those that the model computes for all.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.adaptations import adapt, places
from sentinel.models.families.base import Family, Part, Unit


class BloomFamily(Family):
    """bloom-560m to 176b and bloomz; a group is one head."""

    model_types = frozenset({"bloom"})
    architectures = frozenset({"BloomForCausalLM"})
    kv_heads_key = None
    neurons_key = None
    explicit_head_dim = False

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse the slow mode, which slices the output projections by the dense hidden size."""
        if config.pretraining_tp > 1 and config.slow_but_exact:
            raise ModelUnsupported(
                "BLOOM with `slow_but_exact` slices its projections at dense positions; set it to false in config.json."
            )

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The blocks."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """A head's query, key and value follow one another."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.dense_h_to_4h, side="out", widths=(1,)),
                Part(module=block.mlp.dense_4h_to_h, side="in", widths=(1,)),
            )
        head_dim = self.head_dim(model.config)
        return (
            Part(module=block.self_attention.query_key_value, side="out", widths=(3 * head_dim,)),
            Part(module=block.self_attention.dense, side="in", widths=(head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head count and which slopes are its own."""
        if unit == "attention":
            attention: Any = self.layers(model)[layer].self_attention
            attention.num_heads = len(keep)
            adapt(attention, "KeptAlibi", groups=places(attention, keep), queries=1)

    def without_groups(self, model: PreTrainedModel, layer: int, unit: Unit) -> None:
        """The attention adds its output to the residual stream itself, so it does that with its bias, too."""
        if unit == "attention":
            block: Any = self.layers(model)[layer]
            adapt(block.self_attention, "NoAttentionOnResidual", output="dense")

    def neurons(self, config: PreTrainedConfig) -> int:
        """Always four times the hidden size."""
        return 4 * config.hidden_size

    def residual_scale(self, config: PreTrainedConfig) -> float | None:
        """Some variants add to the normalised stream, which is another one for each unit."""
        return None if config.apply_residual_connection_post_layernorm else 1.0
