"""What the headers of a model's weights tell before anything of it is loaded: names and shapes. Torch-free.

A safetensors file begins with eight bytes that say how long its JSON header is; the header names every tensor with its
type, shape and place (https://huggingface.co/docs/safetensors). Knows no architecture.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentinel.errors import ModelInvalid

LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_LAYER = re.compile(r"\.(\d+)\.")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model as its tensors describe it.

    Attributes:
        layers: For each layer, the shapes of its tensors.
        others: Shapes of the tensors outside of layers: embeddings, the last norm, an untied head.
    """

    layers: tuple[tuple[Shape, ...], ...]
    others: tuple[Shape, ...]

    @property
    def parameters(self) -> int:
        """Numbers in all tensors; tied ones are stored once and count once."""
        return sum(map(count, (*self.others, *(shape for layer in self.layers for shape in layer))))

    @property
    def embedding(self) -> tuple[int, int]:
        """Tokens of the vocabulary and width of the residual stream, from the largest matrix outside of layers."""
        rows, columns = max((shape for shape in self.others if len(shape) == 2), key=count, default=(0, 0))
        return max(rows, columns), min(rows, columns)


def count(shape: Shape) -> int:
    """Numbers in a tensor."""
    return math.prod(shape)


def read_shape(folder: Path) -> ModelShape:
    """Read the headers of every safetensors file in a folder.

    Raises:
        ModelInvalid: A header is damaged, or there is none.
        OSError: A file cannot be read.
    """
    layers: dict[int, list[Shape]] = {}
    others: list[Shape] = []
    for file in sorted(folder.glob("*.safetensors")):
        for name, shape in _tensors(file):
            layer = _LAYER.search(name)
            (others if layer is None else layers.setdefault(int(layer[1]), [])).append(shape)
    if not layers:
        raise ModelInvalid(f"The safetensors headers in {folder.name!r} name no layers.")
    return ModelShape(layers=tuple(tuple(layers[index]) for index in sorted(layers)), others=tuple(others))


def _tensors(file: Path) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor in a file."""
    try:
        for name, entry in _header(file).items():
            if name != "__metadata__":
                yield name, tuple(int(extent) for extent in entry["shape"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelInvalid(f"The header of {file.name} is damaged: {error}") from error


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LARGEST_HEADER_BYTES:
            raise ValueError(f"it declares {length} bytes")
        header: dict[str, Any] = json.loads(stream.read(length))
    return header
