"""Granite: Llama's layout with multipliers; the class reads `head_dim` where the config has one."""

from transformers import PreTrainedConfig

from sentinel.models.families.llama_like import LlamaLikeFamily


class GraniteFamily(LlamaLikeFamily):
    """The dense models of Granite 3."""

    model_types = frozenset({"granite"})
    architectures = frozenset({"GraniteForCausalLM"})

    def residual_scale(self, config: PreTrainedConfig) -> float | None:
        """Both units share one multiplier."""
        return config.residual_multiplier
