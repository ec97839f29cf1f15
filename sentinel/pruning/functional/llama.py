"""Llama: rotary positions, RMS norms, grouped-query attention, a gated MLP; with or without biases.

A Mistral without a sliding window has the same tensors and computes the same: a cut Llama may be exported as one.
Weights are stored (out, in).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from jax import Array

from sentinel.errors import ModelUnsupported
from sentinel.pruning.functional.architecture import Architecture, Params, Projection, Shapes, Site, Unit, Weights
from sentinel.pruning.functional.parts import ACTIVATIONS, causal_attention, check_activation, rms_norm
from sentinel.pruning.functional.rotary import frequencies_of, rotate

_OUTPUTS: Mapping[Unit, str] = {"attention": "self_attn.o_proj", "mlp": "mlp.down_proj"}
# What transformers assumes where a Mistral's config does not say.
_MISTRAL_WINDOW = 4096


@dataclass(frozen=True, kw_only=True)
class Llama(Architecture):
    """Llama 1 to 3, TinyLlama, SmolLM2 and all others of this class.

    Attributes:
        frequencies: Radians per position of every pair of a head's features.
        biased: Units whose projections have biases.
    """

    base_prefix = "model."
    layers_prefix = "layers."
    embedding_name = "embed_tokens.weight"

    frequencies: tuple[float, ...]
    biased: frozenset[Unit]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """As the base class says."""
        if config["model_type"] == "mistral" and config.get("sliding_window", _MISTRAL_WINDOW) is not None:
            raise ModelUnsupported("A Mistral with a sliding window is not supported here; without one it is.")
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        if heads % kv_heads:
            raise ModelUnsupported(f"{heads} query heads cannot share {kv_heads} KV heads evenly.")
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        biased: dict[Unit, str] = {"attention": "attention_bias", "mlp": "mlp_bias"}
        return cls(
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            vocabulary=config["vocab_size"],
            positions=None,
            head_dim=head_dim,
            queries_per_kv_head=heads // kv_heads,
            activation=check_activation(config.get("hidden_act", "silu")),
            epsilon=config.get("rms_norm_eps", 1e-6),
            tied=config.get("tie_word_embeddings", False),
            frequencies=frequencies_of(config, head_dim=head_dim),
            biased=frozenset(unit for unit, key in biased.items() if config.get(key)),
        )

    def layer_shapes(self, groups: int, neurons: int) -> Shapes:
        """As the base class says."""
        hidden, keys = self.hidden_size, groups * self.head_dim
        queries = keys * self.queries_per_kv_head
        sizes: dict[Unit, Shapes] = {
            "attention": {
                "self_attn.q_proj": (queries, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, queries),
            },
            "mlp": {
                "mlp.gate_proj": (neurons, hidden),
                "mlp.up_proj": (neurons, hidden),
                "mlp.down_proj": (hidden, neurons),
            },
        }
        shapes: Shapes = {f"{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for unit, projections in sizes.items():
            for name, size in projections.items():
                shapes[f"{name}.weight"] = size
                if unit in self.biased:
                    shapes[f"{name}.bias"] = size[:1]
        return shapes

    def other_shapes(self) -> Shapes:
        """As the base class says."""
        tokens = (self.vocabulary, self.hidden_size)
        return {"embed_tokens.weight": tokens, "norm.weight": (self.hidden_size,), "lm_head.weight": tokens}

    def embed(self, params: Params, tokens: Array) -> Array:
        """As the base class says."""
        return params.others["embed_tokens.weight"][tokens]

    def inputs(self, layer: Weights, site: Site, hidden: Array) -> Array:
        """As the base class says."""
        if site.unit == "mlp":
            x = self._norm(layer, "post_attention_layernorm", hidden)
            gate = ACTIVATIONS[self.activation](_project(layer, "mlp.gate_proj", x))
            return gate * _project(layer, "mlp.up_proj", x)
        x = self._norm(layer, "input_layernorm", hidden)
        q, k, v = (_project(layer, f"self_attn.{name}_proj", x) for name in "qkv")
        by_head = (len(x), site.num_groups, self.head_dim)
        q = q.reshape(len(x), site.num_groups, self.queries_per_kv_head, self.head_dim)
        q, k = rotate(q, self.frequencies), rotate(k.reshape(by_head), self.frequencies)
        return causal_attention(q, k, v.reshape(by_head), scale=self.head_dim**-0.5)

    def output(self, layer: Weights, unit: Unit) -> Projection:
        """As the base class says."""
        name = _OUTPUTS[unit]
        return Projection(layer[f"{name}.weight"], layer.get(f"{name}.bias"))

    def predict(self, params: Params, hidden: Array) -> Array:
        """As the base class says."""
        return self._norm(params.others, "norm", hidden) @ params.others["lm_head.weight"].T

    def _norm(self, weights: Weights, name: str, x: Array) -> Array:
        return rms_norm(x, weights[f"{name}.weight"], epsilon=self.epsilon)


def _project(layer: Weights, name: str, x: Array) -> Array:
    y = x @ layer[f"{name}.weight"].T
    bias = layer.get(f"{name}.bias")
    return y if bias is None else y + bias
