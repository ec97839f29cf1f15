"""OPT: multi-head attention with separate projections; the MLP's two projections sit on the decoder layer itself."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.models.families.base import Family, Part, Unit


class OPTFamily(Family):
    """opt-125m to 175b, norms before or after, embeddings as wide as the layers or not; a group is one head."""

    model_types = frozenset({"opt"})
    architectures = frozenset({"OPTForCausalLM"})
    kv_heads_key = None
    neurons_key = "ffn_dim"
    explicit_head_dim = False

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.model.decoder.layers)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """All projections have biases, or none (`enable_bias`)."""
        block: Any = self.layers(model)[layer]
        if unit == "mlp":
            return (
                Part(module=block.fc1, side="out", widths=(1,)),
                Part(module=block.fc2, side="in", widths=(1,)),
            )
        attention, head_dim = block.self_attn, self.head_dim(model.config)
        return (
            *(
                Part(module=projection, side="out", widths=(head_dim,))
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            ),
            Part(module=attention.out_proj, side="in", widths=(head_dim,)),
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the attention its new head count; the size of a head stays what it was."""
        if unit == "attention":
            block: Any = self.layers(model)[layer]
            block.self_attn.num_heads = len(keep)

    def residual_scale(self, config: PreTrainedConfig) -> float | None:
        """With norms behind the units there is one between them and the residual stream."""
        return 1.0 if config.do_layer_norm_before else None
