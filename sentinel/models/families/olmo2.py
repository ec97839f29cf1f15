"""OLMo 2: Llama's layout, but queries and keys are normalised over all heads together, before they part.

So a head that is gone would still count in the norm of the others. Queries and keys are therefore computed for all
heads, and the norms hand on those of the heads that are there; values and outputs are cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from sentinel.errors import ExportImpossible
from sentinel.models.families.adaptations import adapt, places, restore
from sentinel.models.families.base import Part, Unit
from sentinel.models.families.llama_like import LlamaLikeFamily
from sentinel.models.families.parts import num_groups_of


class Olmo2Family(LlamaLikeFamily):
    """OLMo 2, 1B to 32B."""

    model_types = frozenset({"olmo2"})
    architectures = frozenset({"Olmo2ForCausalLM"})

    def attention_parts(self, attention: Any, config: PreTrainedConfig) -> tuple[Part, ...]:  # noqa: ANN401 - the class is untyped
        """Values and outputs; without any group left, queries, keys and their norms go too."""
        _, _, *cut = super().attention_parts(attention, config)
        if num_groups_of(cut):
            return tuple(cut)
        return (*self._computed_for_all(attention, config), *cut)

    def parts_of_last(self, model: PreTrainedModel, layer: int, unit: Unit) -> Sequence[Part]:
        """Queries, keys and their norms."""
        block: Any = self.layers(model)[layer]
        return self._computed_for_all(block.self_attn, model.config) if unit == "attention" else ()

    def _computed_for_all(self, attention: Any, config: PreTrainedConfig) -> tuple[Part, ...]:  # noqa: ANN401 - the class is untyped
        queries, keys, *_ = super().attention_parts(attention, config)
        return (
            Part(module=attention.q_norm, side="out", widths=queries.widths),
            Part(module=attention.k_norm, side="out", widths=keys.widths),
            queries,
            keys,
        )

    def after_cut(self, model: PreTrainedModel, layer: int, unit: Unit, keep: Sequence[int]) -> None:
        """Tell the norms which heads to hand on."""
        if unit == "mlp" or not keep:
            return
        attention: Any = self.layers(model)[layer].self_attn
        queries, keys, *_ = super().attention_parts(attention, model.config)
        for norm, part in ((attention.q_norm, queries), (attention.k_norm, keys)):
            adapt(norm, "KeptFeatures", groups=places(norm, keep), width=part.widths[0])

    def without_groups(self, model: PreTrainedModel, layer: int, unit: Unit) -> None:
        """Nothing reads queries and keys any more."""
        if unit == "attention":
            for part in self.parts(model, layer, unit):
                part.cut([], num_groups=0)
                restore(part.module)
        super().without_groups(model, layer, unit)

    def stock_config(self, config: PreTrainedConfig, counts: Mapping[Unit, int]) -> PreTrainedConfig:
        """Fewer neurons only: the stock norms would forget the heads that are gone."""
        if counts["attention"] != self.dense_count(config, "attention"):
            raise ExportImpossible(
                "A stock OLMo 2 normalises over its own heads only; with fewer it computes otherwise."
            )
        return super().stock_config(config, counts)

    def residual_scale(self, config: PreTrainedConfig) -> float | None:  # noqa: ARG002 - one answer for all
        """A norm stands between a unit and the residual stream."""
        return None
