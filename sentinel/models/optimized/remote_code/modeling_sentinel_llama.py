"""Llama, Mistral and Qwen2 whose layers keep different numbers of heads, as Sentinel prunes them.

Self-contained: this file travels inside the checkpoint and needs only `torch` and `transformers`.
`config.json` gives the dense head counts, and in `per_layer_config` the layers that differ.
"""

from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

_GLOBAL_ACCESS = "allow_global_per_layer_attribute_access"


class _UnevenConfig:
    """Leaves `allow_global_per_layer_attribute_access` to the stock config, which cannot load without it.

    Here nothing reads a global head count, so none needs allowing, and there is nothing to warn of.
    """

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - whatever config.json holds
        kwargs.pop(_GLOBAL_ACCESS, None)
        super().__post_init__(**kwargs)  # type: ignore[misc] # of the config it is mixed into

    def validate_architecture(self) -> None:
        """Head counts need not divide the hidden size: `head_dim` is explicit."""

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), _GLOBAL_ACCESS: True}  # type: ignore[misc] # as above


class SentinelLlamaConfig(_UnevenConfig, LlamaConfig):
    """A Llama config with `per_layer_config`."""


class SentinelMistralConfig(_UnevenConfig, MistralConfig):
    """A Mistral config with `per_layer_config`."""


class SentinelQwen2Config(_UnevenConfig, Qwen2Config):
    """A Qwen2 config with `per_layer_config`."""


class _UnevenModel:
    """Builds the stock model at dense size, then each attention anew from its layer's config."""

    model: Any

    def __init__(self, config: PreTrainedConfig) -> None:
        layer_configs = list(config.per_layer_config)
        overrides = config.to_dict().get("per_layer_config")
        config.per_layer_config = None
        super().__init__(config)  # type: ignore[call-arg] # of the model it is mixed into
        config.per_layer_config = overrides
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = type(layer.self_attn)(layer_configs[index], index)
            # All layers must follow a later change of the attention implementation.
            layer.self_attn.config = config


class SentinelLlamaForCausalLM(_UnevenModel, LlamaForCausalLM):
    """Llama with its own number of KV heads in each layer."""

    config_class = SentinelLlamaConfig


class SentinelMistralForCausalLM(_UnevenModel, MistralForCausalLM):
    """Mistral with its own number of KV heads in each layer."""

    config_class = SentinelMistralConfig


class SentinelQwen2ForCausalLM(_UnevenModel, Qwen2ForCausalLM):
    """Qwen2 with its own number of KV heads in each layer."""

    config_class = SentinelQwen2Config
