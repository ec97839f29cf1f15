"""GPT-2: learned positions, layer norms, one fused projection for queries, keys and values. A group is one head.

Weights are stored (in, out).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
from jax import Array

from sentinel.errors import ModelUnsupported
from sentinel.pruning.functional.architecture import Architecture, Params, Projection, Shapes, Site, Unit, Weights
from sentinel.pruning.functional.parts import ACTIVATIONS, causal_attention, check_activation, layer_norm

_OUTPUTS: Mapping[Unit, str] = {"attention": "attn.c_proj", "mlp": "mlp.c_proj"}


@dataclass(frozen=True, kw_only=True)
class GPT2(Architecture):
    """gpt2, distilgpt2 and their like.

    Attributes:
        scaled: Whether scores are divided by the root of the head's features.
        scaled_by_layer: Whether they are divided by the number of the layer too.
    """

    base_prefix = "transformer."
    layers_prefix = "h."
    embedding_name = "wte.weight"

    scaled: bool
    scaled_by_layer: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """As the base class says."""
        if config.get("add_cross_attention"):
            raise ModelUnsupported("GPT-2 with cross attention is not supported; use a decoder-only model.")
        return cls(
            num_layers=config["n_layer"],
            hidden_size=config["n_embd"],
            vocabulary=config["vocab_size"],
            positions=config["n_positions"],
            head_dim=config["n_embd"] // config["n_head"],
            queries_per_kv_head=1,
            activation=check_activation(config.get("activation_function", "gelu_new")),
            epsilon=config.get("layer_norm_epsilon", 1e-5),
            tied=config.get("tie_word_embeddings", True),
            scaled=config.get("scale_attn_weights", True),
            scaled_by_layer=config.get("scale_attn_by_inverse_layer_idx", False),
        )

    def layer_shapes(self, groups: int, neurons: int) -> Shapes:
        """As the base class says."""
        hidden, heads = self.hidden_size, groups * self.head_dim
        norms = {f"{norm}.{name}": (hidden,) for norm in ("ln_1", "ln_2") for name in ("weight", "bias")}
        sizes = {
            "attn.c_attn": (hidden, 3 * heads),
            "attn.c_proj": (heads, hidden),
            "mlp.c_fc": (hidden, neurons),
            "mlp.c_proj": (neurons, hidden),
        }
        weights = {f"{name}.weight": size for name, size in sizes.items()}
        return {**norms, **weights, **{f"{name}.bias": size[1:] for name, size in sizes.items()}}

    def other_shapes(self) -> Shapes:
        """As the base class says."""
        hidden, positions = self.hidden_size, self.positions or 0
        tokens = (self.vocabulary, hidden)
        norm = {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
        return {"wte.weight": tokens, "wpe.weight": (positions, hidden), **norm, "lm_head.weight": tokens}

    def embed(self, params: Params, tokens: Array) -> Array:
        """As the base class says."""
        return params.others["wte.weight"][tokens] + params.others["wpe.weight"][: len(tokens)]

    def inputs(self, layer: Weights, site: Site, hidden: Array) -> Array:
        """As the base class says."""
        if site.unit == "mlp":
            neurons = _project(layer, "mlp.c_fc", self._norm(layer, "ln_2", hidden))
            return ACTIVATIONS[self.activation](neurons)
        qkv = _project(layer, "attn.c_attn", self._norm(layer, "ln_1", hidden))
        q, k, v = (part.reshape(len(hidden), site.num_groups, self.head_dim) for part in jnp.split(qkv, 3, axis=-1))
        scale = self.head_dim**-0.5 if self.scaled else 1.0
        return causal_attention(q[:, :, None], k, v, scale=scale / (site.layer + 1 if self.scaled_by_layer else 1))

    def output(self, layer: Weights, unit: Unit) -> Projection:
        """As the base class says."""
        name = _OUTPUTS[unit]
        return Projection(layer[f"{name}.weight"].T, layer[f"{name}.bias"])

    def predict(self, params: Params, hidden: Array) -> Array:
        """As the base class says."""
        return self._norm(params.others, "ln_f", hidden) @ params.others["lm_head.weight"].T

    def _norm(self, weights: Weights, name: str, x: Array) -> Array:
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon=self.epsilon)


def _project(layer: Weights, name: str, x: Array) -> Array:
    return x @ layer[f"{name}.weight"] + layer[f"{name}.bias"]
