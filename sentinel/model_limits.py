"""How large a model may be, told from its config and the headers of its weights before it is loaded. Torch-free."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sentinel.errors import ModelTooLarge
from sentinel.model_files import read_json
from sentinel.model_shape import ModelShape, read_shape

# What the configs of the supported architectures call them.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
# transformers makes a name for every label.
_VOCABULARY = ("vocab_size", "num_labels")


class ModelLimits(BaseModel):
    """What a model may have at most; the defaults are beyond any supported model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int = Field(200_000_000_000, description="Numbers in all tensors.")
    weight_bytes: int = Field(800_000_000_000, description="What its tensors take on disk.")
    layers: int = Field(1000, description="Decoder layers.")
    positions: int = Field(2**20, description="Tokens that it reads at most.")
    vocabulary: int = Field(2**20, description="Tokens that it knows.")


def check_limits(folder: Path, limits: ModelLimits) -> ModelShape:
    """The shape of a folder's model, if neither that nor what config.json says of it is beyond the limits.

    Raises:
        ModelTooLarge: It is.
        ModelNotFound, ModelInvalid, ModelUnsafe: The config or the headers cannot be read.
        OSError: A file cannot be read.
    """
    shape = read_shape(folder)
    for what, found, limit in _sizes(read_json(folder / "config.json"), shape, limits):
        if found > limit:
            raise ModelTooLarge(what, found, limit)
    return shape


def _sizes(config: Mapping[str, Any], shape: ModelShape, limits: ModelLimits) -> Iterator[tuple[str, int, int]]:
    """What there is, how much of it, and how much there may be."""
    yield "parameters", shape.parameters, limits.parameters
    yield "bytes of weights", shape.stored_bytes, limits.weight_bytes
    yield "layers", max(len(shape.layers), _said(config, _LAYERS)), limits.layers
    yield "positions", _said(config, _POSITIONS), limits.positions
    yield "tokens", max(shape.embedding[0], _said(config, _VOCABULARY)), limits.vocabulary


def _said(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """The largest whole number under one of the names; what is no number is for the config's class to refuse."""
    return max((value for name in names if isinstance(value := config.get(name), int)), default=0)
