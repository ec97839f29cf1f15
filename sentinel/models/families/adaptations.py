"""What a module does otherwise once groups are gone, where its class cannot read that off its tensors' shapes.

An adaptation is put before the class of one module and has settings that JSON can hold, so that a checkpoint can
say which modules have which. Self-contained: the text of this file also becomes part of the modelling file that
travels inside uneven checkpoints. Holds no tensors: models are built on the meta device there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Adaptation(nn.Module):
    """Base of what stands before a module's own class; its settings are in `adaptation`."""

    adaptation: dict[str, Any]


class NoAttention(Adaptation):
    """An attention without heads: gives the bias of its output projection, named `output`, and tells the cache so."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **arguments: Any) -> Any:  # noqa: ANN401
        """What the class would return: the output and no attention weights."""
        self.count_tokens(hidden_states, arguments.get("past_key_values", arguments.get("layer_past")))
        return self.constant(hidden_states), None

    def count_tokens(self, hidden_states: torch.Tensor, cache: Any) -> None:  # noqa: ANN401
        """Caches count by their first layer, and only if it holds something: one head of one feature."""
        if cache is not None:
            nothing = hidden_states.new_zeros((hidden_states.shape[0], 1, hidden_states.shape[1], 1))
            cache.update(nothing, nothing, self.layer_id if hasattr(self, "layer_id") else self.layer_idx)

    def constant(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """What the output projection makes of no heads."""
        output: torch.Tensor = getattr(self, self.adaptation["output"])(hidden_states[..., :0])
        return output


class NoAttentionOnResidual(NoAttention):
    """The same for an attention that adds its output to the residual stream itself."""

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor, *_: Any, **arguments: Any) -> Any:  # noqa: ANN401
        """The residual stream and that bias."""
        constant, _weights = super().forward(hidden_states, **arguments)
        probability: float = self.hidden_dropout  # type: ignore[assignment]
        return residual + nn.functional.dropout(constant, p=probability, training=self.training), None


class KeptAlibi(Adaptation):
    """An attention that is handed ALiBi for the heads of all groups and takes that of `groups`, `queries` of each."""

    def forward(self, *inputs: Any, alibi: torch.Tensor, attention_mask: torch.Tensor | None, **arguments: Any) -> Any:  # noqa: ANN401
        """`alibi` is (batch · dense heads, 1, keys) or (batch, dense heads, 1, keys)."""
        batch_size = inputs[0].shape[0]
        by_head = alibi if alibi.ndim == 4 else alibi.unflatten(0, (batch_size, -1))
        kept = self.of_kept_heads(by_head)
        if attention_mask is not None and attention_mask.shape[1] == by_head.shape[1]:  # ALiBi was added to it
            attention_mask = self.of_kept_heads(attention_mask)
        alibi = kept if alibi.ndim == 4 else kept.flatten(0, 1)
        return super().forward(*inputs, alibi=alibi, attention_mask=attention_mask, **arguments)

    def of_kept_heads(self, by_head: torch.Tensor) -> torch.Tensor:
        """From (batch, dense heads, …) to (batch, heads, …)."""
        queries: int = self.adaptation["queries"]
        return torch.cat([by_head[:, g * queries : (g + 1) * queries] for g in self.adaptation["groups"]], dim=1)


class OwnConfig(Adaptation):
    """A module that reads `values` off its config in every forward pass and must find its own there."""

    @property
    def config(self) -> Any:  # noqa: ANN401 - any config
        """The model's own, at any time, but for the values."""
        return _ConfigOfLayer(self.__dict__["config"], self.adaptation["values"])


class _ConfigOfLayer:
    def __init__(self, config: Any, values: dict[str, Any]) -> None:  # noqa: ANN401 - any config
        self.__dict__.update(values, of_model=config)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the config holds
        return getattr(self.__dict__["of_model"], name)


class NoInputs(Adaptation):
    """A `Conv1D` without inputs, which its own class cannot compute: the bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The bias, once for each token."""
        bias: torch.Tensor = self.bias  # type: ignore[assignment]
        return bias + x.new_zeros((*x.shape[:-1], 1))


class KeptFeatures(Adaptation):
    """A norm over the features of all groups that hands on those of `groups` only, `width` of each."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise over the dense width, then pick."""
        width: int = self.adaptation["width"]
        whole: torch.Tensor = super().forward(x)
        return torch.cat([whole[..., g * width : (g + 1) * width] for g in self.adaptation["groups"]], dim=-1)


ADAPTATIONS: dict[str, type[Adaptation]] = {
    kind.__name__: kind for kind in (NoAttention, NoAttentionOnResidual, NoInputs, KeptFeatures, KeptAlibi, OwnConfig)
}


def adapt(module: nn.Module, name: str, **settings: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Give the module the adaptation of this name, in place of one that it may have."""
    own = type(module).__bases__[1] if isinstance(module, Adaptation) else type(module)
    module.__class__ = type(f"{name}{own.__name__}", (ADAPTATIONS[name], own), {})
    module.adaptation = {"name": name, **settings}  # type: ignore[assignment]


def restore(module: nn.Module) -> None:
    """Take the module's adaptation away, if it has one."""
    if isinstance(module, Adaptation):
        module.__class__ = type(module).__bases__[1]
        del module.adaptation


def places(module: nn.Module, keep: Sequence[int]) -> list[int]:
    """Where among the dense model's groups those come from that the module, perhaps adapted before, keeps now."""
    before = getattr(module, "adaptation", {}).get("groups")
    return [int(group) if before is None else before[group] for group in keep]


def found_in(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The adaptations of the model's modules, by the modules' paths."""
    return {path: module.adaptation for path, module in model.named_modules() if isinstance(module, Adaptation)}


def groups_in(layer: nn.Module) -> list[int] | None:
    """The places of the layer's attention groups among the dense model's, if an adaptation says them."""
    said = [adaptation["groups"] for adaptation in found_in(layer).values() if "groups" in adaptation]
    return said[0] if said else None
