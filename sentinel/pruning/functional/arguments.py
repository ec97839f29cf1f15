"""What callers hand in, as arrays of JAX, or a message that says what does not fit.

JAX itself would take the nearest row of an embedding in place of one that is not there.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from sentinel.pruning.functional.architecture import Architecture


def windows_of(model: Architecture, windows: ArrayLike) -> Array:
    """Token ids, int32 (windows, tokens).

    Raises:
        ValueError: They are none, not of that shape, too short, too long, or not tokens of the model.
    """
    given = _tokens(model, windows)
    longest = model.positions or "any number of"
    if given.ndim != 2 or not len(given) or given.shape[1] < 2 or given.shape[1] > (model.positions or given.shape[1]):
        raise ValueError(f"Windows are (windows, tokens), of 2 to {longest} tokens; these are {given.shape}.")
    return given


def labels_of(model: Architecture, labels: ArrayLike, *, windows: Array) -> Array:
    """One token for every position of the windows.

    Raises:
        ValueError: They are not as many, or not tokens of the model.
    """
    given = _tokens(model, labels)
    if given.shape != windows.shape:
        raise ValueError(f"The labels have the shape {given.shape}, the windows {windows.shape}.")
    return given


def gates_of(gates: ArrayLike, *, total: int, dimensions: int) -> Array:
    """Multipliers, float32, (total,) or, with two dimensions, (rows, total).

    Raises:
        ValueError: They are not of that shape.
    """
    given = jnp.asarray(gates, dtype=jnp.float32)
    if given.ndim != dimensions or given.shape[-1] != total:
        wanted = ("gates", "rows, gates")[dimensions - 1]
        raise ValueError(f"The model has {total} gates and takes ({wanted}); these are {given.shape}.")
    return given


def _tokens(model: Architecture, tokens: ArrayLike) -> Array:
    given = np.asarray(tokens)
    if not np.issubdtype(given.dtype, np.integer) or np.any((given < 0) | (given >= model.vocabulary)):
        raise ValueError(f"Tokens are whole numbers from 0 to {model.vocabulary - 1}.")
    return jnp.asarray(given, dtype=jnp.int32)
