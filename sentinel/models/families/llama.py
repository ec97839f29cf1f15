"""Llama: the layout that most families share, with or without biases.

The stock config refuses head counts that do not divide the hidden size, though its layers would compute them. A
Mistral has the same tensors and computes the same, and its config does not refuse.
"""

from collections.abc import Mapping

from transformers import LlamaConfig, MistralConfig, PreTrainedConfig

from sentinel.errors import ExportImpossible
from sentinel.models.families.base import Unit
from sentinel.models.families.llama_like import LlamaLikeFamily

# Fields of a Llama config that a Mistral config lacks; the biases are off where it stands in.
_LLAMA_ONLY_KEYS = frozenset({"model_type", "attention_bias", "mlp_bias", "pretraining_tp"})


class LlamaFamily(LlamaLikeFamily):
    """Llama 1 to 3, TinyLlama, SmolLM2 and all others that use Llama's class."""

    model_types = frozenset({"llama"})
    architectures = frozenset({"LlamaForCausalLM"})

    def stock_config(self, config: PreTrainedConfig, counts: Mapping[Unit, int]) -> PreTrainedConfig:
        """The same class with fewer heads; a Llama whose heads no longer divide its hidden size becomes a Mistral."""
        heads = counts["attention"] * self.queries_per_kv_head(config)
        if not isinstance(config, LlamaConfig) or config.hidden_size % heads == 0:
            return super().stock_config(config, counts)
        if config.attention_bias or config.mlp_bias:
            raise ExportImpossible(
                f"A Llama with biases and {heads} heads for hidden size {config.hidden_size} has no stock class."
            )
        kept = {key: value for key, value in config.to_dict().items() if key not in _LLAMA_ONLY_KEYS}
        fewer = {**self.layer_overrides(config, counts), "head_dim": self.head_dim(config), "sliding_window": None}
        return MistralConfig.from_dict({**kept, **fewer})
