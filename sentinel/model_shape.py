"""What the headers of a model's weights tell before anything of it is loaded: names and shapes. Torch-free.

Knows no architecture.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from sentinel.errors import ModelInvalid
from sentinel.model_files import weight_files
from sentinel.safetensors_header import read_header

_LAYER = re.compile(r"\.(\d+)\.")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model as its tensors describe it.

    Attributes:
        layers: For each layer, the shapes of its tensors.
        others: Shapes of the tensors outside of layers: embeddings, the last norm, an untied head.
        stored_bytes: What all tensors take on disk.
    """

    layers: tuple[tuple[Shape, ...], ...]
    others: tuple[Shape, ...]
    stored_bytes: int

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
    """Read the headers of the files that hold a folder's weights.

    Raises:
        ModelUnsafe, ModelInvalid: As `weight_files` and `read_header` say; or there are no layers.
        OSError: A file cannot be read.
    """
    layers: dict[int, list[Shape]] = {}
    others: list[Shape] = []
    stored_bytes = 0
    for file in weight_files(folder):
        for name, stored in read_header(file).items():
            layer = _LAYER.search(name)
            (others if layer is None else layers.setdefault(int(layer[1]), [])).append(stored.shape)
            stored_bytes += stored.end - stored.begin
    if not layers:
        raise ModelInvalid(f"The safetensors headers in {folder.name!r} name no layers.")
    in_order = tuple(tuple(layers[index]) for index in sorted(layers))
    return ModelShape(layers=in_order, others=tuple(others), stored_bytes=stored_bytes)
