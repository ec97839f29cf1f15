"""An uncompressed tar made while it is sent: nothing is held in memory and the length is known beforehand.

`tarfile` writes the headers; only the order of blocks (POSIX ustar: header, data, padding to 512 bytes,
two empty blocks at the end) is spelled out here, because `tarfile` itself must write to a file.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of the archive; `chunks` opens its bytes when their turn comes."""

    name: str
    size: int
    modified_s: float
    chunks: Callable[[], Iterator[bytes]]

    def header(self) -> bytes:
        """The blocks before the data."""
        info = tarfile.TarInfo(self.name)
        info.size = self.size
        info.mtime = int(self.modified_s)
        return info.tobuf(tarfile.PAX_FORMAT)

    def padding(self) -> bytes:
        """The bytes after the data, up to the next block."""
        return bytes(-self.size % BLOCK)


def length(members: Sequence[Member]) -> int:
    """Bytes of the whole archive."""
    return sum(len(m.header()) + m.size + len(m.padding()) for m in members) + len(END)


def stream(members: Sequence[Member]) -> Iterator[bytes]:
    """The archive, piece by piece."""
    for member in members:
        yield member.header()
        yield from member.chunks()
        yield member.padding()
    yield END
