"""Reads the header of a safetensors file and checks it against the file, as the format's own reader would. Torch-free.

A file begins with eight bytes that say how long its JSON header is; the header names every tensor with its type, shape
and place (https://huggingface.co/docs/safetensors). Nothing behind the header is read, and of the header no more than
the file holds, so what it claims costs nothing.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sentinel.errors import ModelInvalid
from sentinel.plain import unique

# A hundred thousand tensors; the format itself allows four times as much.
LARGEST_HEADER_BYTES = 25_000_000
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


class Stored(NamedTuple):
    """A tensor in a file: its shape, and where its bytes begin and end behind the header."""

    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: Path) -> dict[str, Stored]:
    """Every tensor of a file by name.

    Raises:
        ModelInvalid: The header is too long, does not parse, names a tensor twice, or says what the file does not hold.
        OSError: The file cannot be read.
    """
    try:
        return _tensors(file)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelInvalid(f"The header of {file.name} is damaged: {error}") from error


def _tensors(file: Path) -> dict[str, Stored]:
    if not file.is_file():  # a pipe would keep its reader waiting
        raise ValueError("it is no regular file")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > min(LARGEST_HEADER_BYTES, size - _LENGTH_BYTES):
            raise ValueError(f"it declares {length} bytes, of a file of {size}")
        document = json.loads(stream.read(length), object_pairs_hook=unique)
    tensors = {name: _stored(name, entry) for name, entry in document.items() if name != _METADATA}
    _check_places(tensors, size - _LENGTH_BYTES - length)
    return tensors


def _stored(name: str, entry: Mapping[str, Any]) -> Stored:
    """The entry of one tensor, whose place must be as large as its type and shape say."""
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name!r} has a shape or a place that is no whole number")
    if math.prod(shape) * _BITS[entry["dtype"]] != (end - begin) * 8:
        raise ValueError(f"{name!r} takes {end - begin} bytes, which its type and shape do not")
    return Stored(shape, begin, end)


def _check_places(tensors: Mapping[str, Stored], size: int) -> None:
    """The tensors must fill what is behind the header, without gaps and without sharing a byte."""
    expected = 0
    for name, stored in sorted(tensors.items(), key=lambda entry: entry[1][1:]):
        if stored.begin != expected:
            raise ValueError(f"{name!r} begins at byte {stored.begin}, where {expected} was to follow")
        expected = stored.end
    if expected != size:
        raise ValueError(f"its tensors end at byte {expected} of {size}")
