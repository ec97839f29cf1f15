"""Phi-1 and Phi-2: Llama's attention and GPT-2's MLP side by side, with biases.

The class reads `head_dim` where the config has one, except for the norms of queries and keys (`qk_layernorm`), whose
size it derives from the number of heads.
"""

from collections.abc import Mapping

from transformers import PreTrainedConfig

from sentinel.errors import ExportImpossible
from sentinel.models.families.base import Unit
from sentinel.models.families.llama_like import LlamaLikeFamily


class PhiFamily(LlamaLikeFamily):
    """phi-1, phi-1_5 and phi-2."""

    model_types = frozenset({"phi"})
    architectures = frozenset({"PhiForCausalLM"})
    output_name = "dense"
    mlp_names = ("fc1", "fc2")

    def stock_config(self, config: PreTrainedConfig, counts: Mapping[Unit, int]) -> PreTrainedConfig:
        """Fewer heads only without norms of queries and keys."""
        if config.qk_layernorm and counts["attention"] != self.dense_count(config, "attention"):
            raise ExportImpossible("A stock phi class with `qk_layernorm` cannot have fewer heads of the same size.")
        return super().stock_config(config, counts)
