"""Forward passes that gather statistics; weights do not change.

Knows how to feed calibration windows to a model, whole or layer by layer. Knows no score.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sentinel.data.loaders.windows import token_batches
from sentinel.models.families.base import Family, Site, Unit


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model and the windows that its groups are judged on.

    Attributes:
        units: The kinds of groups that are judged.
        windows: Token ids, (windows, sequence_length), on the model's device.
        seed: Seeds whatever a strategy draws.
    """

    model: PreTrainedModel
    family: Family
    units: Sequence[Unit]
    windows: torch.Tensor
    seed: int

    def sites(self) -> list[Site]:
        """The sites that are judged, those with groups left, in the order in which the model computes them."""
        return [site for site in self.family.sites(self.model, self.units) if site.num_groups]

    def batches(self) -> Iterator[torch.Tensor]:
        """The windows in order, several per forward pass."""
        return token_batches(self.windows)


class LayerwisePass:
    """Hidden states of every calibration batch, carried through the model one layer at a time.

    Lets each layer be changed on the inputs that the already changed layers before it produce,
    without running the model once per layer.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._model, self._family = calibration.model, calibration.family
        layers = self._family.layers(self._model)
        self._batches = list(calibration.batches())
        returns_tuple = _returns_tuple(self._model, layers[0], self._batches[0])
        self._calls = [
            _record_calls(self._model, layers, batch, returns_tuple=returns_tuple) for batch in self._batches
        ]
        self.hidden = [calls[0].hidden for calls in self._calls]
        self._running = 0

    @contextmanager
    def replaying(self, module: nn.Module) -> Iterator[None]:
        """Compute a module of the layer at hand once per batch, and hand out the same result from then on."""
        compute = module.forward
        results: dict[int, Any] = {}

        def forward(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - as the module's own forward
            if self._running not in results:
                with torch.no_grad():
                    results[self._running] = compute(*arguments, **keywords)
            return results[self._running]

        with _replaced_forward([module], forward):
            yield

    def run(self, layer: int) -> None:
        """Replace the carried states by the output of `layer` as it is now."""
        module = self._family.layers(self._model)[layer]
        self.hidden = [self._call(index, layer, module) for index in range(len(self.hidden))]

    def run_to(self, layer: int, module: nn.Module, see: Callable[[int, torch.Tensor], None]) -> None:
        """Run `layer` up to the input of `module` only, and show `see` the batch's index and that input.

        It is (windows, tokens, features).
        """
        whole = self._family.layers(self._model)[layer]
        for index in range(len(self.hidden)):
            with _stopping_at(module) as caught:
                self._call(index, layer, whole)
            see(index, by_window(caught[0], self.hidden[index]))

    @torch.no_grad()
    def logits(self) -> Iterator[torch.Tensor]:
        """What the model makes of the carried states behind its last layer, (windows, tokens, vocabulary) per batch."""
        for index, hidden in enumerate(self.hidden):
            yield self.logits_of(index, hidden)

    def logits_of(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The same of any states of one batch; differentiable where gradients are enabled."""
        pass_on = partial(_passed_on, hidden, returns_tuple=self._calls[0][0].returns_tuple)
        with _replaced_forward(self._family.layers(self._model), pass_on):
            logits: torch.Tensor = self._model(input_ids=self._batches[index], use_cache=False).logits
        return logits

    def output_of(self, layer: int, index: int) -> torch.Tensor:
        """What `layer` makes of one batch; differentiable where gradients are enabled."""
        self._running = index
        return self._calls[index][layer].repeat(self._family.layers(self._model)[layer], self.hidden[index])

    def call(self, layer: int, module: nn.Module) -> torch.Tensor:
        """What `module` makes of the first batch's state in the place of `layer`."""
        return self._call(0, layer, module)

    @torch.no_grad()
    def _call(self, index: int, layer: int, module: nn.Module) -> torch.Tensor:
        self._running = index
        return self._calls[index][layer].repeat(module, self.hidden[index])


def by_window(features: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """(windows, tokens, features) again, where a class flattened that to (windows · tokens, features).

    Args:
        features: What a module of a layer got or gave.
        hidden: The states of the same batch.
    """
    return features.reshape(*hidden.shape[:2], features.shape[-1])


@dataclass(frozen=True, kw_only=True)
class _LayerCall:
    """The arguments that the model gave one layer for one batch."""

    hidden: torch.Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    returns_tuple: bool

    def repeat(self, layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        output = layer(hidden, *self.arguments, **self.keywords)
        return output[0] if isinstance(output, tuple) else output


class _Stop(Exception):
    """Ends a layer's forward pass where its result is no longer needed."""


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Catch the input of `module` and stop there; whoever runs the layer need not know."""
    caught: list[torch.Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        caught.append(arguments[0])
        raise _Stop

    handle = module.register_forward_pre_hook(stop)
    try:
        yield caught
    except _Stop:
        pass
    finally:
        handle.remove()


@torch.no_grad()
def _record_calls(
    model: PreTrainedModel, layers: Sequence[nn.Module], batch: torch.Tensor, *, returns_tuple: bool
) -> list[_LayerCall]:
    """What the model hands to each layer; the layers themselves are not run, but pass their input on."""
    calls: list[_LayerCall] = []

    def record(hidden: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - as the layer's own forward
        # Only the first layer's input is carried.
        kept = hidden if not calls else hidden.new_empty(0)
        calls.append(_LayerCall(hidden=kept, arguments=arguments, keywords=keywords, returns_tuple=returns_tuple))
        return _passed_on(hidden, returns_tuple=returns_tuple)

    with _replaced_forward(layers, record):
        model(input_ids=batch, use_cache=False, logits_to_keep=1)
    return calls


def _passed_on(hidden: torch.Tensor, *_: Any, returns_tuple: bool, **__: Any) -> Any:  # noqa: ANN401 - as a layer's own forward
    return (hidden,) if returns_tuple else hidden


@contextmanager
def _replaced_forward(layers: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    for layer in layers:
        layer.__dict__["forward"] = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _returns_tuple(model: PreTrainedModel, layer: nn.Module, batch: torch.Tensor) -> bool:
    """Whether the layers of this class return a tuple, seen on one short run of the first."""
    seen: list[bool] = []

    def look(_: nn.Module, __: tuple[Any, ...], output: object) -> None:
        seen.append(isinstance(output, tuple))
        raise _Stop

    handle = layer.register_forward_hook(look)
    try:
        model(input_ids=batch[:1, :2], use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    return seen[0]
