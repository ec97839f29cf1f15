"""A stock model whose layers keep different numbers of attention heads and neurons, as Sentinel prunes it.

Self-contained: this file travels inside the checkpoint and needs only `torch` and `transformers`. The config says
how the layers differ twice: in `per_layer_config`, as transformers defines it, and in what is read here: `resized`,
the name of a parameter with its shape, of an attribute with its value, or of a module that is gone with null; and
`adaptations`, the name of a module with what it does otherwise than its class.
"""

from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from sentinel.models.families.adaptations import adapt

_FOR_STOCK_MODELS = ("per_layer_config", "allow_global_per_layer_attribute_access")


class SentinelLlamaConfig(LlamaConfig):
    """The dense model's config with `resized`; what only stock models will read is carried along."""

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - whatever config.json holds
        carried = {key: kwargs.pop(key) for key in _FOR_STOCK_MODELS if key in kwargs}
        super().__post_init__(**kwargs)
        self.__dict__["_carried"] = carried

    def validate_architecture(self) -> None:
        """Head counts need not divide the hidden size: the layers' own sizes are in `resized`."""

    def to_dict(self) -> dict[str, Any]:
        """With what is carried along."""
        content = {**super().to_dict(), **self._carried}
        content.pop("_carried", None)
        return content


class SentinelLlamaForCausalLM(LlamaForCausalLM):
    """Built at dense size, then each part that differs is resized; the weights are loaded afterwards."""

    config_class = SentinelLlamaConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        for name, size in config.resized.items():
            path, _, attribute = name.rpartition(".")
            _resize(self.get_submodule(path), attribute, size)
        for path, adaptation in config.adaptations.items():
            adapt(self.get_submodule(path), **adaptation)


def _resize(module: nn.Module, attribute: str, size: list[int] | int | None) -> None:
    if isinstance(size, list):
        setattr(module, attribute, nn.Parameter(getattr(module, attribute).new_empty(size)))
    elif size is None:
        delattr(module, attribute)
    else:
        setattr(module, attribute, size)
