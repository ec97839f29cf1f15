"""StableLM: Llama's layout, the attention with its own head counts and, in some, a norm per head of queries and keys.

The stock class derives the head size from the number of heads, so it expresses no other number of heads.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.models.families.base import Part, Unit
from sentinel.models.families.llama_like import LlamaLikeFamily
from sentinel.models.families.parts import ListPart


class StableLmFamily(LlamaLikeFamily):
    """StableLM 2, 3B 4E1T, and Stable Code."""

    model_types = frozenset({"stablelm"})
    architectures = frozenset({"StableLmForCausalLM"})
    explicit_head_dim = False

    def attention_parts(self, attention: Any, config: PreTrainedConfig) -> tuple[Part, ...]:  # noqa: ANN401 - the class is untyped
        """The projections and, with `qk_layernorm`, the heads' norms, which are modules of their own."""
        projections = super().attention_parts(attention, config)
        if not config.qk_layernorm:
            return projections
        queries = self.queries_per_kv_head(config)
        return (
            ListPart(module=attention.q_layernorm.norms, side="out", widths=(queries,)),
            ListPart(module=attention.k_layernorm.norms, side="out", widths=(1,)),
            *projections,
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head counts."""
        if unit == "attention":
            attention: Any = self.layers(model)[layer].self_attn
            attention.num_key_value_heads = len(keep)
            attention.num_heads = len(keep) * self.queries_per_kv_head(model.config)
