"""Byte ranges of RFC 9110 §14: one range a request; several at once, or another unit, get the whole file."""

import re
from typing import NamedTuple

from api.refusals import RangeUnsatisfiable

_SINGLE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")


class ByteRange(NamedTuple):
    """`length` bytes from `offset` on."""

    offset: int
    length: int

    def content_range(self, size: int) -> str:
        """The Content-Range header, for a file of `size` bytes."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part that a Range header asks of a file; None means all of it.

    Raises:
        RangeUnsatisfiable: The range has no byte of the file.
    """
    found = _SINGLE.fullmatch(header.replace(" ", "")) if header else None
    if found is None:
        return None
    first, last, suffix = found.groups()
    offset = max(0, size - int(suffix)) if suffix else int(first)
    end = min(size, int(last) + 1) if last else size
    if last and int(last) < offset:
        return None
    if offset >= size:
        raise RangeUnsatisfiable(size=size)
    return ByteRange(offset, end - offset)
