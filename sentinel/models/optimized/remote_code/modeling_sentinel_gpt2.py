"""GPT-2 whose layers keep different numbers of heads, as Sentinel prunes it.

Self-contained: this file travels inside the checkpoint and needs only `torch` and `transformers`.
`config.json` gives the dense head count, and in `per_layer_config` the layers that differ.
"""

from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D


class SentinelGPT2Config(GPT2Config):
    """A GPT-2 config with `per_layer_config` and an explicit `head_dim`."""

    head_dim: int | None = None


class SentinelGPT2LMHeadModel(GPT2LMHeadModel):
    """The stock model with each attention at its own size; heads keep the dense head size."""

    config_class = SentinelGPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        for block, layer_config in zip(self.transformer.h, config.per_layer_config, strict=True):
            attention = block.attn
            width = layer_config.num_attention_heads * attention.head_dim
            attention.num_heads = layer_config.num_attention_heads
            attention.split_size = width
            attention.c_attn = Conv1D(3 * width, attention.embed_dim)
            attention.c_proj = Conv1D(attention.embed_dim, width)
