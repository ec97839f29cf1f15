"""GPT-J: multi-head attention with separate projections, rotary positions, and attention beside the MLP."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.models.families.base import Family, Part, Unit


class GPTJFamily(Family):
    """gpt-j-6b and its like; a group is one head."""

    model_types = frozenset({"gptj"})
    architectures = frozenset({"GPTJForCausalLM"})
    kv_heads_key = None
    neurons_key = "n_inner"
    explicit_head_dim = False

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The blocks."""
        return list(model.transformer.h)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """No projection of the attention has a bias; both of the MLP have one."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.mlp.fc_in, side="out", widths=(1,)),
                Part(module=block.mlp.fc_out, side="in", widths=(1,)),
            )
        head_dim = self.head_dim(model.config)
        return (
            *(
                Part(module=projection, side="out", widths=(head_dim,))
                for projection in (block.attn.q_proj, block.attn.k_proj, block.attn.v_proj)
            ),
            Part(module=block.attn.out_proj, side="in", widths=(head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head count."""
        if unit == "attention":
            block: Any = self.layers(model)[layer]
            block.attn.num_attention_heads = len(keep)

    def neurons(self, config: PreTrainedConfig) -> int:
        """Four times the hidden size, unless the config says otherwise."""
        return 4 * config.n_embd if config.n_inner is None else config.n_inner
