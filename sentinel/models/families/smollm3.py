"""SmolLM3: Llama's layout, some layers without positions; the class reads `head_dim` where the config has one."""

from sentinel.models.families.llama_like import LlamaLikeFamily


class SmolLM3Family(LlamaLikeFamily):
    """SmolLM3."""

    model_types = frozenset({"smollm3"})
    architectures = frozenset({"SmolLM3ForCausalLM"})
