"""Cohere: Llama's layout with attention and MLP side by side; in some, norms of queries and keys, a row per head."""

from typing import Any

from transformers import PreTrainedConfig

from sentinel.models.families.base import Part
from sentinel.models.families.llama_like import LlamaLikeFamily


class CohereFamily(LlamaLikeFamily):
    """Command R and Aya 23; the class reads `head_dim` where the config has one."""

    model_types = frozenset({"cohere"})
    architectures = frozenset({"CohereForCausalLM"})

    def attention_parts(self, attention: Any, config: PreTrainedConfig) -> tuple[Part, ...]:  # noqa: ANN401 - the class is untyped
        """The projections and, with `use_qk_norm`, each head's row of the norms."""
        projections = super().attention_parts(attention, config)
        if not config.use_qk_norm:
            return projections
        return (
            Part(module=attention.q_norm, side="out", widths=(self.queries_per_kv_head(config),)),
            Part(module=attention.k_norm, side="out", widths=(1,)),
            *projections,
        )
