"""Qwen3: Llama's layout and a norm of queries and keys, one weight per feature of a head, which all heads share."""

from sentinel.models.families.llama_like import LlamaLikeFamily


class Qwen3Family(LlamaLikeFamily):
    """The dense models of Qwen3."""

    model_types = frozenset({"qwen3"})
    architectures = frozenset({"Qwen3ForCausalLM"})
