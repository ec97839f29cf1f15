"""What layers are made of. Knows arrays only.

Legend: T tokens, G groups, Q queries per group, D features of a head.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from sentinel.errors import ModelUnsupported

# By their names in a config.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "gelu": partial(jax.nn.gelu, approximate=False),
        "gelu_new": partial(jax.nn.gelu, approximate=True),
        "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
    }
)


def check_activation(name: str) -> str:
    """The name itself.

    Raises:
        ModelUnsupported: There is no such function here.
    """
    if name not in ACTIVATIONS:
        raise ModelUnsupported(f"Here is no activation function {name!r}; there are {', '.join(ACTIVATIONS)}.")
    return name


def layer_norm(x: Array, weight: Array, bias: Array, *, epsilon: float) -> Array:
    """Mean 0 and variance 1 over the last axis, then scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    return rms_norm(centred, weight, epsilon=epsilon) + bias


def rms_norm(x: Array, weight: Array, *, epsilon: float) -> Array:
    """Mean square 1 over the last axis, then scaled."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon) * weight


def causal_attention(q_TGQD: Array, k_TGD: Array, v_TGD: Array, *, scale: float) -> Array:
    """What every query head gathers from the tokens up to its own, (T, G × Q × D)."""
    length = len(q_TGQD)
    scores_GQTS = jnp.einsum("tgqd,sgd->gqts", q_TGQD, k_TGD) * scale
    visible = jnp.tril(jnp.ones((length, length), dtype=bool))
    weights_GQTS = jax.nn.softmax(jnp.where(visible, scores_GQTS, -jnp.inf), axis=-1)
    return jnp.einsum("gqts,sgd->tgqd", weights_GQTS, v_TGD).reshape(length, -1)
