"""What most families share: grouped-query attention with separate projections, and an MLP with or without a gate.

A group is one KV head with the query heads that read it; those are neighbours in the query and output projections.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelUnsupported
from sentinel.models.families.base import Family, Part, Unit


class LlamaLikeFamily(Family):
    """Layers in `model.layers`, each with a `self_attn` that reads its head counts off its projections' shapes.

    Attributes:
        output_name: The attention's output projection.
        mlp_names: The MLP's projections; the last is its output projection.
    """

    output_name: ClassVar[str] = "o_proj"
    mlp_names: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj", "down_proj")

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse query heads that do not share out evenly among the KV heads."""
        if config.num_attention_heads % config.num_key_value_heads:
            raise ModelUnsupported(
                f"{config.num_attention_heads} query heads cannot share {config.num_key_value_heads} KV heads evenly."
            )

    def layers(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The decoder layers."""
        return list(model.model.layers)

    def parts(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """Query heads of a group are contiguous, so every part is one slice per group."""
        block: Any = self.layers(model)[layer]
        return self.mlp_parts(block.mlp) if unit == "mlp" else self.attention_parts(block.self_attn, model.config)

    def attention_parts(self, attention: Any, config: PreTrainedConfig) -> tuple[Part, ...]:  # noqa: ANN401 - any of the classes
        """The four projections, the output projection last."""
        head_dim = self.head_dim(config)
        queries_width = head_dim * self.queries_per_kv_head(config)
        return (
            Part(module=attention.q_proj, side="out", widths=(queries_width,)),
            Part(module=attention.k_proj, side="out", widths=(head_dim,)),
            Part(module=attention.v_proj, side="out", widths=(head_dim,)),
            Part(module=getattr(attention, self.output_name), side="in", widths=(queries_width,)),
        )

    def mlp_parts(self, mlp: Any) -> tuple[Part, ...]:  # noqa: ANN401 - any of the classes
        """A neuron is a row of each projection that comes in and a column of the one that goes out."""
        *rows, output = (getattr(mlp, name) for name in self.mlp_names)
        return (
            *(Part(module=module, side="out", widths=(1,)) for module in rows),
            Part(module=output, side="in", widths=(1,)),
        )
