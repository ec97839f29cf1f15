"""What can be told of a stored model without fetching its weights: its documents, and what the weights' headers say."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from api.store.models import ManifestFile
from api.store.storage import Storage
from sentinel.errors import ModelInvalid, ModelNotFound
from sentinel.model_files import check_files, read_config
from sentinel.model_limits import ModelLimits, check_limits
from sentinel.model_shape import ModelShape

WEIGHTS = ".safetensors"
LENGTH_BYTES = 8  # with which a file of weights says how long its header is
# Some ten thousand tensors. The format allows 100 MB, which would fill this process's memory once parsed.
LARGEST_HEADER_BYTES = 8 * 1024**2
LARGEST_DOCUMENT_BYTES = 16 * 1024**2  # of which any of them is read
REMEMBERED = 64  # models


def shape_of(storage: Storage, files: Sequence[ManifestFile], limits: ModelLimits) -> ModelShape:
    """Names and shapes of the model's tensors, if nothing in it could run code or lead elsewhere.

    Raises:
        ModelNotFound: There are no weights.
        ModelInvalid: A document or a header is damaged, or too long.
        ModelTooLarge: It is beyond the limits.
        ModelUnsafe, ModelUnsupported: As `read_config` and `check_files` say.
        ObjectMissing, StorageUnavailable: The storage does not do its part.
    """
    if not any(file["path"].endswith(WEIGHTS) for file in files):
        raise ModelNotFound("The model has no safetensors weights.")
    return _shape_of(storage, tuple((file["path"], file["storage_key"], file["bytes"]) for file in files), limits)


@lru_cache(REMEMBERED)  # what lies under a key never changes
def _shape_of(storage: Storage, files: tuple[tuple[str, str, int], ...], limits: ModelLimits) -> ModelShape:
    with _sketched(storage, files) as folder:
        read_config(folder)
        check_files(folder)
        return check_limits(folder, limits)


@contextmanager
def _sketched(storage: Storage, files: tuple[tuple[str, str, int], ...]) -> Iterator[Path]:
    """The model's folder, in which whatever is long is zeros behind its header, and takes no room."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for path, key, size in files:
            known = _header_bytes(storage, path, key, size) if path.endswith(WEIGHTS) else size
            with (folder / path).open("wb") as file:
                if path.endswith(WEIGHTS) or size <= LARGEST_DOCUMENT_BYTES:
                    file.writelines(storage.iterate(key, length=known))
                file.truncate(size)
        yield folder


def _header_bytes(storage: Storage, path: str, key: str, size: int) -> int:
    """How long the header of such a file is, its own length included."""
    length = int.from_bytes(b"".join(storage.iterate(key, length=min(LENGTH_BYTES, size))), "little")
    if length > LARGEST_HEADER_BYTES:
        raise ModelInvalid(f"The header of {path} declares {length} bytes.")
    return min(LENGTH_BYTES + length, size)
