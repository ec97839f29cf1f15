"""Mistral: Llama's layout, with an explicit head size and, in some, a sliding window; any uniform counts stay stock."""

from sentinel.models.families.llama_like import LlamaLikeFamily


class MistralFamily(LlamaLikeFamily):
    """Mistral 7B and its like."""

    model_types = frozenset({"mistral"})
    architectures = frozenset({"MistralForCausalLM"})
