"""Llama, Mistral and Qwen2: grouped-query attention with separate projections, with or without biases.

A group is one KV head with the query heads that read it; those are neighbours in `q_proj` and `o_proj`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedModel

from sentinel.errors import ExportImpossible, ModelUnsupported
from sentinel.models.families.base import Family, Part, cut_groups

# Fields of a Llama config that a Mistral config lacks; the biases are off where it stands in.
_LLAMA_ONLY_KEYS = frozenset({"model_type", "attention_bias", "mlp_bias", "pretraining_tp"})


class LlamaFamily(Family):
    """All models whose attention has `q_proj`, `k_proj`, `v_proj` and `o_proj` and no norm on heads."""

    model_types = frozenset({"llama", "mistral", "qwen2"})
    architectures = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})
    remote_module = "modeling_sentinel_llama"

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse query heads that do not share out evenly among the KV heads."""
        if config.num_attention_heads % config.num_key_value_heads:
            raise ModelUnsupported(
                f"{config.num_attention_heads} query heads cannot share {config.num_key_value_heads} KV heads evenly."
            )

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.model.layers)

    def parts(self, model: PreTrainedModel, layer: int) -> Sequence[Part]:
        """Query heads of a group are contiguous, so every part is one slice per group."""
        attention: Any = self.layers(model)[layer].self_attn
        head_dim = self.head_dim(model.config)
        queries_width = head_dim * self.queries_per_kv_head(model.config)
        return (
            Part(module=attention.q_proj, side="out", width=queries_width),
            Part(module=attention.k_proj, side="out", width=head_dim),
            Part(module=attention.v_proj, side="out", width=head_dim),
            Part(module=attention.o_proj, side="in", width=queries_width),
        )

    def keep_groups(self, model: PreTrainedModel, layer: int, keep: Sequence[int]) -> None:
        """Cut the other groups; the attention reads its head counts off the tensors' shapes."""
        cut_groups(self.parts(model, layer), keep)

    def head_dim(self, config: PreTrainedConfig) -> int:
        """Explicit, or the hidden size shared out among the query heads."""
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def queries_per_kv_head(self, config: PreTrainedConfig) -> int:
        """Removing whole groups leaves this ratio as it was."""
        return config.num_attention_heads // config.num_key_value_heads

    def dense_count(self, config: PreTrainedConfig) -> int:
        """KV heads per layer."""
        return config.num_key_value_heads

    def layer_overrides(self, config: PreTrainedConfig, count: int) -> dict[str, int]:
        """Query heads and KV heads of a layer with `count` groups."""
        queries = count * self.queries_per_kv_head(config)
        return {"num_attention_heads": queries, "num_key_value_heads": count}

    def count_of(self, overrides: Mapping[str, int]) -> int:
        """The inverse of `layer_overrides`."""
        return overrides["num_key_value_heads"]

    def stock_config(self, config: PreTrainedConfig, count: int) -> PreTrainedConfig:
        """The same class with fewer heads; a Llama whose heads no longer divide its hidden size becomes a Mistral."""
        heads = self.layer_overrides(config, count)
        changed = {**config.to_dict(), **heads, "head_dim": self.head_dim(config)}
        if not isinstance(config, LlamaConfig) or config.hidden_size % heads["num_attention_heads"] == 0:
            return type(config).from_dict(changed)
        if config.attention_bias or config.mlp_bias:
            raise ExportImpossible(
                f"A Llama with biases and {heads['num_attention_heads']} heads for hidden size {config.hidden_size} "
                "has no stock class."
            )
        kept = {key: value for key, value in changed.items() if key not in _LLAMA_ONLY_KEYS}
        return MistralConfig.from_dict({**kept, "sliding_window": None})
