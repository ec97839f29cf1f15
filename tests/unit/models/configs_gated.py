"""Tiny configs of Llama and what came after it, with as many KV heads as query heads, fewer, and one; name → config."""

from transformers import (
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

_VOCABULARY_SIZE = 31
_SIZES = {
    "vocab_size": _VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_HEADS = {
    "mha": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "gqa": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "mqa": {"num_attention_heads": 4, "num_key_value_heads": 1},
}
_GEMMA = {"head_dim": 6, "query_pre_attn_scalar": 6, "sliding_window": 4}
# What makes each family what it is; its name is followed by one of the kinds of heads.
_FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, object]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 8}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 6, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "gemma": (GemmaConfig, {"head_dim": 6}),
    "gemma2": (Gemma2Config, _GEMMA),
    "gemma3": (Gemma3TextConfig, {**_GEMMA, "sliding_window_pattern": 2}),
    "olmo2": (Olmo2Config, {}),
    "starcoder2": (Starcoder2Config, {"sliding_window": 4}),
    "granite": (
        GraniteConfig,
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 2.0},
    ),
    "stablelm": (StableLmConfig, {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
    "cohere": (CohereConfig, {"logit_scale": 0.5}),
    "smollm3": (SmolLM3Config, {"no_rope_layer_interval": 2}),
    "phi": (PhiConfig, {"partial_rotary_factor": 0.5}),
}


def _config(family: str, heads: str, **options: object) -> PreTrainedConfig:
    kind, own = _FAMILIES[family]
    return kind(**{**_SIZES, **_HEADS[heads], **own, **options})


CONFIGS: dict[str, PreTrainedConfig] = {
    **{f"{family}-{heads}": _config(family, heads) for family in _FAMILIES for heads in _HEADS},
    "llama-mha-wide": _config("llama", "mha", head_dim=6),
    "llama-gqa-biased": _config("llama", "gqa", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "olmo2-gqa-biased": _config("olmo2", "gqa", attention_bias=True),
    "granite-gqa-biased": _config("granite", "gqa", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "stablelm-gqa-normed": _config("stablelm", "gqa", qk_layernorm=True, use_parallel_residual=True),
    "cohere-gqa-normed": _config("cohere", "gqa", use_qk_norm=True, attention_bias=True),
    "phi-gqa-normed": _config("phi", "gqa", qk_layernorm=True),
}
