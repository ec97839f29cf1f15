"""Gemma 2: Llama's layout with soft caps and norms before and after; attention scaled by `query_pre_attn_scalar`.

The stock config refuses head counts that do not divide the hidden size.
"""

from transformers import PreTrainedConfig

from sentinel.models.families.gemma import GemmaFamily


class Gemma2Family(GemmaFamily):
    """Gemma 2, 2B to 27B."""

    model_types = frozenset({"gemma2"})
    architectures = frozenset({"Gemma2ForCausalLM"})

    def residual_scale(self, config: PreTrainedConfig) -> float | None:  # noqa: ARG002 - one answer for all
        """A norm stands between a unit and the residual stream."""
        return None
