"""Tiny configs of the older architectures: GPT-2 and its heirs, ALiBi, fused projections; name → config."""

from transformers import (
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
)

_VOCABULARY_SIZE = 31
_SPECIAL = {"vocab_size": _VOCABULARY_SIZE, "bos_token_id": 0, "eos_token_id": 0}
_SIZES = {**_SPECIAL, "hidden_size": 32, "num_hidden_layers": 3}
_GPT2 = {**_SPECIAL, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_GPT_NEO = {
    **_SPECIAL,
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "max_position_embeddings": 64,
    "window_size": 5,
    "attention_types": [[["global", "local", "local"], 1]],
}
_GPT_NEOX = {**_SIZES, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
_OPT = {
    **_SIZES,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "dropout": 0.0,
}
_FALCON = {**_SIZES, "max_position_embeddings": 64, "ffn_hidden_size": 48}
_PHI3 = {**_SIZES, "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0}

CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(**_GPT2),
    "gpt2-scaled": GPT2Config(**_GPT2, scale_attn_by_inverse_layer_idx=True),
    "gpt_neo": GPTNeoConfig(**_GPT_NEO),
    "gptj": GPTJConfig(**_GPT2, rotary_dim=4),
    "gpt_neox": GPTNeoXConfig(**_GPT_NEOX),
    "gpt_neox-sequential": GPTNeoXConfig(
        **_GPT_NEOX, use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True
    ),
    "opt": OPTConfig(**_OPT),
    "opt-norm-after": OPTConfig(
        **_OPT,
        do_layer_norm_before=False,
        word_embed_proj_dim=16,
        enable_bias=False,
        layer_norm_elementwise_affine=False,
    ),
    "bloom": BloomConfig(**_SIZES, n_head=4, tie_word_embeddings=False),
    # Not a power of two: the slopes of the last heads interleave with those of the first.
    "bloom-six-heads": BloomConfig(
        **{**_SIZES, "hidden_size": 24}, n_head=6, apply_residual_connection_post_layernorm=True
    ),
    "falcon-alibi": FalconConfig(
        **_FALCON, num_attention_heads=4, alibi=True, multi_query=False, parallel_attn=False, bias=True
    ),
    "falcon-rotary": FalconConfig(**_FALCON, num_attention_heads=4, multi_query=False, parallel_attn=True),
    "falcon-multi-query": FalconConfig(**_FALCON, num_attention_heads=4, multi_query=True),
    "falcon-grouped": FalconConfig(
        **_FALCON, num_attention_heads=8, num_kv_heads=4, new_decoder_architecture=True, bias=True
    ),
    "falcon-grouped-alibi": FalconConfig(
        **_FALCON,
        num_attention_heads=8,
        num_kv_heads=4,
        new_decoder_architecture=True,
        num_ln_in_parallel_attn=1,
        alibi=True,
    ),
    "phi3": Phi3Config(**_PHI3, num_attention_heads=8, num_key_value_heads=4),
    "phi3-heads": Phi3Config(**_PHI3, num_attention_heads=4, tie_word_embeddings=True),
    "phi3-multi-query": Phi3Config(**_PHI3, num_attention_heads=4, num_key_value_heads=1, sliding_window=8),
}
