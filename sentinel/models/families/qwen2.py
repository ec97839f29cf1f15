"""Qwen2: Llama's layout with query, key and value biases; the class reads `head_dim` where the config has one."""

from sentinel.models.families.llama_like import LlamaLikeFamily


class Qwen2Family(LlamaLikeFamily):
    """Qwen2 and Qwen2.5."""

    model_types = frozenset({"qwen2"})
    architectures = frozenset({"Qwen2ForCausalLM"})
