"""GPT-2: multi-head attention with one fused `Conv1D` for queries, keys and values. A group is one head."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.base import Family, Part, Unit


class GPT2Family(Family):
    """gpt2, distilgpt2 and their like."""

    model_types = frozenset({"gpt2"})
    architectures = frozenset({"GPT2LMHeadModel"})
    kv_heads_key = None
    neurons_key = "n_inner"
    explicit_head_dim = False

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse cross attention, whose heads are not those of the layer's own attention."""
        if config.add_cross_attention:
            raise ModelUnsupported("GPT-2 with cross attention is not supported; use a decoder-only model.")

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The blocks."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """`c_attn` holds all queries, then all keys, then all values."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.c_fc, side="out", widths=(1,)),
                Part(module=block.mlp.c_proj, side="in", widths=(1,)),
            )
        head_dim = self.head_dim(model.config)
        return (
            Part(module=block.attn.c_attn, side="out", widths=(head_dim, head_dim, head_dim)),
            Part(module=block.attn.c_proj, side="in", widths=(head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head count."""
        if unit == "attention":
            attention: Any = self.layers(model)[layer].attn
            attention.num_heads = len(keep)
            attention.split_size = len(keep) * self.head_dim(model.config)

    def neurons(self, config: PreTrainedConfig) -> int:
        """Four times the hidden size, unless the config says otherwise."""
        return config.n_inner or 4 * config.n_embd
