"""GPT-Neo: multi-head attention with separate projections; layers alternate global and local attention."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.models.families.base import Family, Part, Unit


class GPTNeoFamily(Family):
    """gpt-neo-125m to 2.7b and TinyStories; a group is one head."""

    model_types = frozenset({"gpt_neo"})
    architectures = frozenset({"GPTNeoForCausalLM"})
    kv_heads_key = None
    explicit_head_dim = False

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The blocks."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """The projections sit one module deeper than elsewhere, in `attn.attention`; only the output has a bias."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.c_fc, side="out", widths=(1,)),
                Part(module=block.mlp.c_proj, side="in", widths=(1,)),
            )
        attention, head_dim = block.attn.attention, self.head_dim(model.config)
        return (
            *(
                Part(module=projection, side="out", widths=(head_dim,))
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            ),
            Part(module=attention.out_proj, side="in", widths=(head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head count."""
        if unit == "attention":
            block: Any = self.layers(model)[layer]
            block.attn.attention.num_heads = len(keep)

    def neurons(self, config: PreTrainedConfig) -> int:
        """Four times the hidden size, unless the config says otherwise."""
        return 4 * config.hidden_size if config.intermediate_size is None else config.intermediate_size
