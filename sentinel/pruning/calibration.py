"""Forward passes that gather statistics; weights do not change.

Knows how to feed calibration windows to a model, whole or layer by layer. Knows no score.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sentinel.data.loaders.windows import token_batches
from sentinel.models.families.base import Family


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model and the windows that its groups are judged on.

    Attributes:
        windows: Token ids, (windows, sequence_length), on the model's device.
        seed: Seeds whatever a strategy draws.
    """

    model: PreTrainedModel
    family: Family
    windows: torch.Tensor
    seed: int

    def batches(self) -> Iterator[torch.Tensor]:
        """The windows in order, several per forward pass."""
        return token_batches(self.windows)


class LayerwisePass:
    """Hidden states of every calibration batch, carried through the model one layer at a time.

    Lets each layer be changed on the inputs that the already changed layers before it produce,
    at the cost of two passes over the model instead of one per layer.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[nn.Module], batches: Iterator[torch.Tensor]) -> None:
        self._layers = layers
        self._calls = [_record_calls(model, layers, batch) for batch in batches]
        self._hidden = [calls[0].hidden for calls in self._calls]

    @torch.no_grad()
    def run(self, layer: int) -> list[torch.Tensor]:
        """Output of `layer` for every batch, (windows, sequence_length, hidden); the inputs stay as they are."""
        return [self._calls[i][layer].repeat(self._layers[layer], hidden) for i, hidden in enumerate(self._hidden)]

    def advance(self, layer: int) -> None:
        """Replace the carried states by the output of `layer` as it is now."""
        self._hidden = self.run(layer)


@dataclass(frozen=True, kw_only=True)
class _LayerCall:
    """The arguments that the model gave one layer for one batch."""

    hidden: torch.Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def repeat(self, layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        output = layer(hidden, *self.arguments, **self.keywords)
        return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def _record_calls(model: PreTrainedModel, layers: Sequence[nn.Module], batch: torch.Tensor) -> list[_LayerCall]:
    calls: list[_LayerCall] = []

    def record(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden, *rest = arguments
        # Only the first layer's input is carried; keeping the others would hold the whole residual stream.
        kept = hidden if not calls else hidden.new_empty(0)
        calls.append(_LayerCall(hidden=kept, arguments=tuple(rest), keywords=keywords))

    handles = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        model(input_ids=batch, use_cache=False, logits_to_keep=1)
    finally:
        _remove(handles)
    return calls


def watch_inputs(module: nn.Module, see: Callable[[torch.Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    """Show `see` every input of `module`; the caller removes the returned hook."""
    return module.register_forward_pre_hook(lambda _, arguments: see(arguments[0]))


def _remove(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
