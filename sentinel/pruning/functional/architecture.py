"""What every architecture has in common: layers that add their sites' outputs to one residual stream.

Knows gates, and nothing of what a site computes its inputs from. Everything is a pure function of one window, so that
`vmap` makes many windows or many rows of gates of it, `grad` differentiates it by the gates, and `jit` compiles it.

Legend: T tokens of a window, H hidden size, V vocabulary; groups of one site, gates of all sites.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

# As in `models.families.base`, which loads torch.
Unit = Literal["attention", "mlp"]
UNITS: tuple[Unit, ...] = ("attention", "mlp")

Weights = dict[str, Array]
Shapes = dict[str, tuple[int, ...]]


class Site(NamedTuple):
    """The groups of one unit in one layer, and where their gates begin among those of all sites."""

    unit: Unit
    layer: int
    num_groups: int
    start: int

    @property
    def gates(self) -> slice:
        """Its gates among those of all sites."""
        return slice(self.start, self.start + self.num_groups)


class Params(NamedTuple):
    """A model's weights, float32, by their names in a checkpoint; what is cut shows in their shapes.

    Attributes:
        layers: For each layer, names without what leads to the layer.
        others: Embeddings, the last norm, the head; a tied head is the same array.
    """

    layers: tuple[Weights, ...]
    others: Weights


class Projection(NamedTuple):
    """A site's output projection: weight (H, in), bias (H,) or None."""

    weight: Array
    bias: Array | None


class Trace(NamedTuple):
    """What one window leaves behind.

    Attributes:
        logits: (T, V).
        inputs: Per site, what its output projection reads while its gates are open, (T, groups × width).
    """

    logits: Array
    inputs: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """What a config says and the weights do not; hashable, so that `jit` can take it for a constant.

    Attributes:
        num_layers: Decoder layers.
        hidden_size: Width of the residual stream.
        vocabulary: Tokens that are embedded.
        positions: Tokens of the longest window; None where there is no limit.
        head_dim: Features of one head.
        queries_per_kv_head: Query heads that read one KV head.
        activation: Name of the MLP's activation function.
        epsilon: What the norms add to a variance.
        tied: Whether the head is the embedding.
        base_prefix: What leads to the base model in a checkpoint's names; those of a bare base model lack it.
        layers_prefix: What leads from there to the layers.
        embedding_name: The embedding's name.
    """

    base_prefix: ClassVar[str]
    layers_prefix: ClassVar[str]
    embedding_name: ClassVar[str]

    num_layers: int
    hidden_size: int
    vocabulary: int
    positions: int | None
    head_dim: int
    queries_per_kv_head: int
    activation: str
    epsilon: float
    tied: bool

    def __post_init__(self) -> None:
        counts = ("num_layers", "hidden_size", "vocabulary", "head_dim", "queries_per_kv_head")
        for name, count in ((name, getattr(self, name)) for name in counts):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is {count!r}")

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read config.json, with the defaults of `transformers`.

        Raises:
            ModelUnsupported: A variant that would compute something else than this class does.
            KeyError, TypeError, ValueError: The config lacks something, or it has no sense.
        """

    @abstractmethod
    def layer_shapes(self, groups: int, neurons: int) -> Shapes:
        """The tensors of a layer with so many groups of either unit."""

    @abstractmethod
    def other_shapes(self) -> Shapes:
        """The tensors outside of layers, the head among them."""

    @abstractmethod
    def embed(self, params: Params, tokens: Array) -> Array:
        """The residual stream before the first layer, (T, H)."""

    @abstractmethod
    def inputs(self, layer: Weights, site: Site, hidden: Array) -> Array:
        """What the site's output projection reads, from the residual stream (T, H): (T, groups × width)."""

    @abstractmethod
    def output(self, layer: Weights, unit: Unit) -> Projection:
        """A site's output projection."""

    @abstractmethod
    def predict(self, params: Params, hidden: Array) -> Array:
        """Logits (T, V) from the residual stream behind the last layer."""

    def width(self, unit: Unit) -> int:
        """Columns of the output projection's input that belong to one group."""
        return self.head_dim * self.queries_per_kv_head if unit == "attention" else 1

    def sites(self, params: Params) -> tuple[Site, ...]:
        """Every layer's sites, those without groups too, in the order in which the model computes them."""
        keys = [(unit, layer) for layer in range(len(params.layers)) for unit in UNITS]
        counts = [self.output(params.layers[i], unit).weight.shape[1] // self.width(unit) for unit, i in keys]
        starts = accumulate(counts, initial=0)
        return tuple(Site(*key, count, start) for key, count, start in zip(keys, counts, starts, strict=False))

    def run(self, params: Params, gates: Array, tokens: Array, nudges: Sequence[Array] | None = None) -> Trace:
        """Run one window through the model.

        Args:
            params: The weights.
            gates: A multiplier for every group of every site, (gates,); 1 = open, 0 = closed.
            tokens: Ids, (T,).
            nudges: Per site, what is added to its output, (T, H).
        """
        inputs = []
        with jax.default_matmul_precision("float32"):
            hidden = self.embed(params, tokens)
            for number, site in enumerate(self.sites(params)):
                layer = params.layers[site.layer]
                x = self.inputs(layer, site, hidden)
                weight, bias = self.output(layer, site.unit)
                hidden += (x * jnp.repeat(gates[site.gates], self.width(site.unit))) @ weight.T
                if bias is not None:
                    hidden += bias
                if nudges is not None:
                    hidden += nudges[number]
                inputs.append(x)
            return Trace(self.predict(params, hidden), tuple(inputs))

    def logits(self, params: Params, gates: Array, tokens: Array) -> Array:
        """(T, V), from the arguments of `run`."""
        return self.run(params, gates, tokens).logits
