"""Gemma: Llama's layout with an explicit head size; any uniform counts stay stock."""

from transformers import PreTrainedConfig

from sentinel.errors import ModelUnsupported
from sentinel.models.families.llama_like import LlamaLikeFamily


class GemmaFamily(LlamaLikeFamily):
    """Gemma 2B (one KV head, so a layer is a single group) and 7B."""

    model_types = frozenset({"gemma"})
    architectures = frozenset({"GemmaForCausalLM"})

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse encoders too."""
        super().check_config(config)
        if config.use_bidirectional_attention:
            raise ModelUnsupported("A Gemma with bidirectional attention is an encoder; use a causal language model.")
