"""Phi-3: grouped-query attention and a gated MLP, each with its inputs in one fused projection, without biases."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.adaptations import adapt
from sentinel.models.families.base import Family, Part, Unit


class Phi3Family(Family):
    """Phi-3, Phi-3.5 and phi-4; a group is one KV head with the query heads that read it."""

    model_types = frozenset({"phi3"})
    architectures = frozenset({"Phi3ForCausalLM"})

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse query heads that do not share out evenly among the KV heads."""
        if config.num_attention_heads % config.num_key_value_heads:
            raise ModelUnsupported(
                f"{config.num_attention_heads} query heads cannot share {config.num_key_value_heads} KV heads evenly."
            )

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.model.layers)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """`qkv_proj` holds all queries, then all keys, then all values; `gate_up_proj` all gates, then all ups."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.gate_up_proj, side="out", widths=(1, 1)),
                Part(module=block.mlp.down_proj, side="in", widths=(1,)),
            )
        head_dim = self.head_dim(model.config)
        queries_width = head_dim * self.queries_per_kv_head(model.config)
        return (
            Part(module=block.self_attn.qkv_proj, side="out", widths=(queries_width, head_dim, head_dim)),
            Part(module=block.self_attn.o_proj, side="in", widths=(queries_width,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head counts; the number of query heads it reads off the model's config."""
        if unit == "attention":
            attention: Any = self.layers(model)[layer].self_attn
            attention.num_key_value_heads = len(keep)
            heads = len(keep) * self.queries_per_kv_head(model.config)
            adapt(attention, "OwnConfig", values={"num_attention_heads": heads})
