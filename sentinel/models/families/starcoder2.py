"""StarCoder2: Llama's attention and GPT-2's MLP, with biases; the class reads `head_dim` where the config has one."""

from sentinel.models.families.llama_like import LlamaLikeFamily


class Starcoder2Family(LlamaLikeFamily):
    """StarCoder2 3B, 7B and 15B."""

    model_types = frozenset({"starcoder2"})
    architectures = frozenset({"Starcoder2ForCausalLM"})
    mlp_names = ("c_fc", "c_proj")
