"""GPT-2: multi-head attention with one fused `Conv1D` for queries, keys and values. A group is one head."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ExportImpossible, ModelUnsupported
from sentinel.models.families.base import Family, Part, cut_groups


class GPT2Family(Family):
    """gpt2, distilgpt2 and their like."""

    model_types = frozenset({"gpt2"})
    architectures = frozenset({"GPT2LMHeadModel"})
    remote_module = "modeling_sentinel_gpt2"

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse cross attention, whose heads are not those of the layer's own attention."""
        if config.add_cross_attention:
            raise ModelUnsupported("GPT-2 with cross attention is not supported; use a decoder-only model.")

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The blocks."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int) -> Sequence[Part]:
        """`c_attn` holds all queries, then all keys, then all values."""
        attention: Any = self.layers(model)[layer].attn
        head_dim = self.head_dim(model.config)
        return (
            Part(module=attention.c_attn, side="out", width=head_dim, blocks=3),
            Part(module=attention.c_proj, side="in", width=head_dim),
        )

    def keep_groups(self, model: PreTrainedModel, layer: int, keep: Sequence[int]) -> None:
        """Cut the other heads and tell the attention its new head count."""
        cut_groups(self.parts(model, layer), keep)
        attention: Any = self.layers(model)[layer].attn
        attention.num_heads = len(keep)
        attention.split_size = len(keep) * self.head_dim(model.config)

    def head_dim(self, config: PreTrainedConfig) -> int:
        """GPT-2 has no explicit head size."""
        return config.n_embd // config.n_head

    def queries_per_kv_head(self, config: PreTrainedConfig) -> int:  # noqa: ARG002 - multi-head attention has only one answer
        """Every head has its own keys and values."""
        return 1

    def dense_count(self, config: PreTrainedConfig) -> int:
        """Heads per layer."""
        return config.n_head

    def layer_overrides(self, config: PreTrainedConfig, count: int) -> dict[str, int]:  # noqa: ARG002 - no ratio to read
        """Heads of a layer with `count` groups."""
        return {"num_attention_heads": count}

    def count_of(self, overrides: Mapping[str, int]) -> int:
        """The inverse of `layer_overrides`."""
        return overrides["num_attention_heads"]

    def stock_config(self, config: PreTrainedConfig, count: int) -> PreTrainedConfig:
        """Only the uncut model: the stock class derives the head size from the head count."""
        if count != config.n_head:
            raise ExportImpossible(f"GPT-2 cannot have {count} heads of its head size in a stock class.")
        return type(config).from_dict(config.to_dict())
