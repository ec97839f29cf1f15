"""Falcon: one fused projection, laid out in three ways, with rotary positions or ALiBi.

The new decoder architecture has groups of query heads followed by their key and value; the old one has
heads of query, key and value each, or (`multi_query`) all query heads and then the one key and value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.adaptations import adapt, places
from sentinel.models.families.base import Family, Part, Unit


class FalconFamily(Family):
    """falcon-rw, falcon-7b, falcon-40b, falcon2 and their like; with `multi_query` a layer is a single group."""

    model_types = frozenset({"falcon"})
    architectures = frozenset({"FalconForCausalLM"})
    kv_heads_key = "num_kv_heads"
    neurons_key = "ffn_hidden_size"
    explicit_head_dim = False

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse query heads that do not share out evenly among the KV heads."""
        if config.num_attention_heads % self.dense_count(config, "attention"):
            raise ModelUnsupported(
                f"{config.num_attention_heads} query heads cannot share {config.num_kv_heads} KV heads evenly."
            )

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """In each of the three layouts a group's queries, key and value are neighbours."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.dense_h_to_4h, side="out", widths=(1,)),
                Part(module=block.mlp.dense_4h_to_h, side="in", widths=(1,)),
            )
        head_dim, queries = self.head_dim(model.config), self.queries_per_kv_head(model.config)
        return (
            Part(module=block.self_attention.query_key_value, side="out", widths=((queries + 2) * head_dim,)),
            Part(module=block.self_attention.dense, side="in", widths=(queries * head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head counts and which slopes are its own."""
        if unit != "attention":
            return
        attention: Any = self.layers(model)[layer].self_attention
        queries = self.queries_per_kv_head(model.config)
        attention.num_heads, attention.num_kv_heads = len(keep) * queries, len(keep)
        if model.config.alibi:
            adapt(attention, "KeptAlibi", groups=places(attention, keep), queries=queries)

    def asking_for_map(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The mask holds ALiBi already; the eager attention would add it a second time."""
        asking = super().asking_for_map(keywords)
        if asking["alibi"] is not None:
            asking["alibi"] = torch.zeros_like(asking["alibi"])
        return asking

    def dense_count(self, config: PreTrainedConfig, unit: Unit) -> int:
        """The old architecture reads one KV head or one per query head, whatever `num_kv_heads` says."""
        if unit == "mlp" or config.new_decoder_architecture:
            return super().dense_count(config, unit)
        return 1 if config.multi_query else config.num_attention_heads

    def may_exceed(self, config: PreTrainedConfig, unit: Unit) -> bool:
        """A class that reads the only key and value cannot read a second one."""
        return unit == "mlp" or config.new_decoder_architecture or not config.multi_query
