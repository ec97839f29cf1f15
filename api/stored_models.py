"""What the headers of a stored model's weights tell, without fetching the weights."""

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from api.store.models import ManifestFile
from api.store.storage import Storage
from sentinel.errors import ModelInvalid, ModelNotFound
from sentinel.model_shape import ModelShape, read_shape

WEIGHTS = ".safetensors"
LENGTH_BYTES = 8  # with which a file says how long its header is
# Some ten thousand tensors. The format allows 100 MB, which would fill this process's memory once parsed.
LARGEST_HEADER_BYTES = 8 * 1024**2
REMEMBERED = 64  # models


def shape_of(storage: Storage, files: Iterable[ManifestFile]) -> ModelShape:
    """Names and shapes of the model's tensors.

    Raises:
        ModelNotFound: There are no weights.
        ModelInvalid: A header is damaged, or too long.
        ObjectMissing, StorageUnavailable: The storage does not do its part.
    """
    weights = tuple((f["path"], f["storage_key"], f["bytes"]) for f in files if f["path"].endswith(WEIGHTS))
    if not weights:
        raise ModelNotFound("The model has no safetensors weights.")
    return _shape_of(storage, weights)


@lru_cache(REMEMBERED)  # what lies under a key never changes
def _shape_of(storage: Storage, weights: tuple[tuple[str, str, int], ...]) -> ModelShape:
    with TemporaryDirectory() as folder:
        for path, key, size in weights:
            _fetch_header(storage, key, size, Path(folder, path))
        return read_shape(Path(folder))


def _fetch_header(storage: Storage, key: str, size: int, path: Path) -> None:
    """A file with the header of another and zeros behind it, which take no room."""
    length = int.from_bytes(b"".join(storage.iterate(key, length=min(LENGTH_BYTES, size))), "little")
    if length > LARGEST_HEADER_BYTES:
        raise ModelInvalid(f"The header of {path.name} declares {length} bytes.")
    with path.open("wb") as file:
        for chunk in storage.iterate(key, length=min(LENGTH_BYTES + length, size)):
            file.write(chunk)
        os.truncate(file.fileno(), size)
