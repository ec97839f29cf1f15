"""GPT-NeoX: multi-head attention with one fused projection, in which each head has its query, key and value."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sentinel.models.families.base import Family, Part, Unit


class GPTNeoXFamily(Family):
    """Pythia, gpt-neox-20b and their like, with parallel or sequential residual; a group is one head."""

    model_types = frozenset({"gpt_neox"})
    architectures = frozenset({"GPTNeoXForCausalLM"})
    kv_heads_key = None
    explicit_head_dim = False

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.gpt_neox.layers)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """A head's query, key and value follow one another; the attention counts its heads off their shape."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.dense_h_to_4h, side="out", widths=(1,)),
                Part(module=block.mlp.dense_4h_to_h, side="in", widths=(1,)),
            )
        head_dim = self.head_dim(model.config)
        return (
            Part(module=block.attention.query_key_value, side="out", widths=(3 * head_dim,)),
            Part(module=block.attention.dense, side="in", widths=(head_dim,)),
        )
