"""What forward and backward passes over windows tell, compiled once for a model and the shapes of its arguments.

Labels that are sampled from the model's predictions are an argument, so that whoever compares can have the same ones
elsewhere. Knows no importance.

Legend: W windows, T tokens of a window, V vocabulary, M masks; gates of all sites, H hidden size. Results are float32.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.pruning.functional.architecture import Architecture, Params

Result = TypeVar("Result")
# What a backward pass holds beside a forward pass: as much again.
_BACKWARD_TOKENS = FORWARD_TOKENS // 2


class MaskLosses(NamedTuple):
    """Per mask, in nats per token, (M,) each: the next-token loss, and KL(dense ‖ masked)."""

    loss: Array
    kl: Array


def open_gates(model: Architecture, params: Params) -> Array:
    """(gates,), all 1."""
    return jnp.ones(sum(site.num_groups for site in model.sites(params)))


@partial(jax.jit, static_argnums=0)
def logits(model: Architecture, params: Params, gates: Array, windows: Array) -> Array:
    """(W, T, V) for windows (W, T) under gates (gates,)."""
    return _map(partial(model.logits, params, gates), windows)


@partial(jax.jit, static_argnums=0)
def losses_of_masks(model: Architecture, params: Params, masks: Array, windows: Array) -> MaskLosses:
    """What each of the masks (M, gates) leaves on windows (W, T); one window goes through under many masks at once."""

    def of_window(tokens: Array) -> MaskLosses:
        log_p = _predictions(model, params, open_gates(model, params), tokens)

        def of_mask(gates: Array) -> MaskLosses:
            log_q = _predictions(model, params, gates, tokens)
            divergences = (jnp.exp(log_p) * (log_p - log_q)).sum(-1)
            return MaskLosses(_losses(log_q, tokens).mean(), divergences.mean())

        return jax.lax.map(of_mask, masks, batch_size=_rows(FORWARD_TOKENS, windows))

    return MaskLosses(*(values.mean(0) for values in jax.lax.map(of_window, windows)))


@partial(jax.jit, static_argnums=0)
def loss_slopes(model: Architecture, params: Params, windows: Array) -> Array:
    """∂loss/∂m at open gates, per window, (W, gates); loss is the mean over the window's tokens."""

    def loss(gates: Array, tokens: Array) -> Array:
        return _losses(_predictions(model, params, gates, tokens), tokens).mean()

    slope = partial(jax.grad(loss), open_gates(model, params))
    return _map(slope, windows, _BACKWARD_TOKENS)


@partial(jax.jit, static_argnums=0)
def likelihood_slopes(model: Architecture, params: Params, windows: Array, labels: Array) -> Array:
    """Z = ∂Σ_t log p(y_t)/∂m at open gates, per window, (W, gates)."""

    def likelihood(gates: Array, tokens: Array, labels: Array) -> Array:
        return _log_likelihood(model.logits(params, gates, tokens), labels)

    slope = partial(jax.grad(likelihood), open_gates(model, params))
    return _map(lambda pair: slope(*pair), (windows, labels), _BACKWARD_TOKENS)


@partial(jax.jit, static_argnums=0)
def output_sensitivities(model: Architecture, params: Params, windows: Array, labels: Array) -> Array:
    """κ = E‖g‖² per site, (sites,); g = ∂log p(y)/∂(site output) per token."""
    sites, gates = model.sites(params), open_gates(model, params)
    still = [jnp.zeros((windows.shape[1], model.hidden_size)) for _ in sites]

    def likelihood(nudges: list[Array], tokens: Array, labels: Array) -> Array:
        return _log_likelihood(model.run(params, gates, tokens, nudges).logits, labels)

    def squares(pair: tuple[Array, Array]) -> Array:
        return jnp.stack([jnp.square(g).sum() for g in jax.grad(likelihood)(still, *pair)])

    return _map(squares, (windows, labels), _BACKWARD_TOKENS).sum(0) / windows.size


@partial(jax.jit, static_argnums=0)
def output_energies(model: Architecture, params: Params, windows: Array) -> Array:
    """tr(W_h C_hh W_hᵀ) = E‖W_h x_h‖² of every group of every site, (gates,)."""
    sites, gates = model.sites(params), open_gates(model, params)

    def blocks(tokens: Array) -> list[Array]:
        """Σ_t x_h x_hᵀ, (groups, width, width) per site."""
        inputs = model.run(params, gates, tokens).inputs
        shapes = [(len(tokens), site.num_groups, model.width(site.unit)) for site in sites]
        slices = [x.reshape(shape) for x, shape in zip(inputs, shapes, strict=True)]
        return [jnp.einsum("tgi,tgj->gij", x, x, precision="float32") for x in slices]

    energies = []
    for site, block in zip(sites, _map(blocks, windows), strict=True):
        weight = model.output(params.layers[site.layer], site.unit).weight
        W = weight.reshape(model.hidden_size, site.num_groups, model.width(site.unit))
        energies.append(jnp.einsum("ogi,gij,ogj->g", W, block.sum(0) / windows.size, W, precision="float32"))
    return jnp.concatenate(energies)


def draw_labels(model: Architecture, params: Params, windows: Array, seed: int) -> Array:
    """One token per position, (W, T), from the model's own predictions."""
    # Outside of what is compiled, which takes no seed beyond 31 bits.
    return _draw_labels(model, params, windows, jax.random.split(jax.random.key(seed), len(windows)))


@partial(jax.jit, static_argnums=0)
def _draw_labels(model: Architecture, params: Params, windows: Array, keys: Array) -> Array:
    predict = partial(model.logits, params, open_gates(model, params))
    return _map(lambda pair: jax.random.categorical(pair[0], predict(pair[1])), (keys, windows))


def _predictions(model: Architecture, params: Params, gates: Array, tokens: Array) -> Array:
    """Log-probabilities of the tokens that follow within the window, (T − 1, V)."""
    return jax.nn.log_softmax(model.logits(params, gates, tokens)[:-1])


def _losses(log_q: Array, tokens: Array) -> Array:
    """Cross-entropy of every next token, (T − 1,), from log-probabilities (T − 1, V)."""
    return -jnp.take_along_axis(log_q, tokens[1:, None], axis=-1)[:, 0]


def _log_likelihood(logits: Array, labels: Array) -> Array:
    """Σ_t log p(y_t)."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1).sum()


def _map(
    function: Callable[..., Result], over: Array | tuple[Array, Array], tokens_at_a_time: int = FORWARD_TOKENS
) -> Result:
    """The function's results for every window, one behind the other; some windows at a time."""
    windows = over if isinstance(over, Array) else over[-1]
    found: Result = jax.lax.map(function, over, batch_size=_rows(tokens_at_a_time, windows))
    return found


def _rows(tokens_at_a_time: int, windows: Array) -> int:
    return max(1, tokens_at_a_time // windows.shape[1])
