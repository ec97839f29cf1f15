"""Rotary positions (Su et al. 2021): pairs of a head's features, turned by an angle that grows with the position."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from sentinel.errors import ModelUnsupported

DEFAULT_THETA = 10_000.0
KINDS = ("default", "linear", "llama3")


def frequencies_of(config: Mapping[str, Any], *, head_dim: int) -> tuple[float, ...]:
    """Radians per position of every pair of features, as the config's `rope_parameters` say, (head_dim / 2,).

    Computed in float32, as `transformers` does. An older config says the same in `rope_scaling` and `rope_theta`.

    Raises:
        ModelUnsupported: Frequencies that depend on the length of the window, or that not all features have.
    """
    said = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = said.get("rope_type", said.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ModelUnsupported(
            f"Rotary positions of type {kind!r} are not supported here; default, linear, llama3 are."
        )
    if said.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelUnsupported("Rotary positions of a part of a head's features are not supported here.")
    theta = said.get("rope_theta", config.get("rope_theta", DEFAULT_THETA))
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = 1 / np.power(np.float32(theta), exponents)
    if kind == "linear":
        frequencies /= np.float32(said["factor"])
    if kind == "llama3":
        trained = said.get("original_max_position_embeddings", config.get("max_position_embeddings"))
        frequencies = _stretched(frequencies, {**said, "trained": trained})
    return tuple(map(float, frequencies))


def _stretched(frequencies: np.ndarray, said: Mapping[str, Any]) -> np.ndarray:
    """Slow turns by a factor slower, fast ones as they were, and a smooth passage between the two (Llama 3.1)."""
    low, high = said["low_freq_factor"], said["high_freq_factor"]
    turns = said["trained"] * frequencies / (2 * math.pi)  # in a window of the length it was trained on
    fast = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - fast) / said["factor"] + fast) * frequencies


def rotate(x: Array, frequencies: tuple[float, ...]) -> Array:
    """Turn the features of (T, …, D) by their positions; the first half of a head pairs with the second."""
    angles = jnp.arange(len(x))[:, None] * jnp.array(frequencies, dtype=x.dtype)
    angles = angles.reshape(len(x), *(1,) * (x.ndim - 2), -1)
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
