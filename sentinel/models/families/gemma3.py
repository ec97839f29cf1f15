"""Gemma 3, text only: Gemma 2's layout and a norm of queries and keys, one weight per feature of a head.

The stock config refuses head counts that do not divide the hidden size.
"""

from transformers import PreTrainedConfig

from sentinel.models.families.gemma import GemmaFamily


class Gemma3Family(GemmaFamily):
    """Gemma 3 270M and 1B, and the text models of the larger ones where they come alone."""

    model_types = frozenset({"gemma3_text"})
    architectures = frozenset({"Gemma3ForCausalLM"})

    def residual_scale(self, config: PreTrainedConfig) -> float | None:  # noqa: ARG002 - one answer for all
        """A norm stands between a unit and the residual stream."""
        return None
