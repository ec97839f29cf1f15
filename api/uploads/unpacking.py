"""Takes a model out of a .tar or .zip that a stranger made. Nothing but bytes comes out: no name, mode or link is used.

All members are checked before the first is read, and none is trusted: `tarfile` and `zipfile` see the archive through
a `_Narrow` file, so that no header makes them read more into memory than a header needs. Bytes go from member to
caller; where they are written, and under which name, is not decided by the archive.
"""

import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from api import refusals
from api.uploads.contents import CONFIG, FILE_NAME, suffix_of
from sentinel.model_files import MODEL_SUFFIXES

CHUNK_BYTES = 1024 * 1024
# Of a tar's long names and pax records, which `tarfile` reads at once and searches in quadratic time.
LARGEST_TAR_HEADER_BYTES = 4096
LARGEST_TAR_HEADERS_BYTES = 1024 * 1024  # of all members together
LARGEST_NAME = 1000
# Deflate makes at most 1032 bytes of one. Weights shrink by a few percent, JSON to a tenth.
LARGEST_RATIO = 100
SMALL_BYTES = 64 * 1024  # of which no ratio says anything
READABLE_ZIP = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RecursionError,
)


class Limits(NamedTuple):
    """What an archive may hold."""

    files: int
    file_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file that may be taken out.

    Attributes:
        path: Its plain name.
        size: In bytes.
        chunks: Reads it; raises `ArchiveInvalid` if it is not as its header says.
    """

    path: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


class _Entry(NamedTuple):
    """A member as an archive's header has it; a folder is not a file."""

    name: str
    size: int
    is_file: bool
    chunks: Callable[[], Iterator[bytes]]


def members_of(file: IO[bytes], *, is_zip: bool, limits: Limits) -> list[Member]:
    """The model's files in an archive: those beside the outermost config.json that a model is loaded from.

    Args:
        file: The archive, which can be sought.
        is_zip: It is a zip, not a tar.
        limits: What it may hold.

    Raises:
        ArchiveRefused: One of its subclasses.
    """
    with _as_invalid():
        entries = _entries_of_zip(file) if is_zip else _entries_of_tar(file, limits)
    _check_size(entries, limits)
    names = [_checked_name(entry.name) for entry in entries]
    files = [(name, entry) for name, entry in zip(names, entries, strict=True) if entry.is_file]
    _check_names([name for name, _ in files])
    wanted = set(_of_the_model([name for name, _ in files]))
    return [Member(path=name.name, size=e.size, chunks=e.chunks) for name, e in files if name in wanted]


@contextmanager
def _as_invalid() -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise refusals.ArchiveInvalid(f"The archive cannot be read: {error}") from error


def _check_size(entries: Sequence[_Entry], limits: Limits) -> None:
    if len(entries) > limits.files:
        raise refusals.ArchiveTooLarge(f"The archive has more than {limits.files} members.")
    if any(entry.size > limits.file_bytes for entry in entries):
        raise refusals.ArchiveTooLarge(f"A file in the archive has more than {limits.file_bytes} bytes.")
    if sum(entry.size for entry in entries) > limits.total_bytes:
        raise refusals.ArchiveTooLarge(f"The files in the archive have more than {limits.total_bytes} bytes together.")


def _checked_name(name: str) -> PurePosixPath:
    """The place inside the archive."""
    path = PurePosixPath(name)
    plain = name.isprintable() and not {"\\", ":"} & set(name) and 0 < len(name) <= LARGEST_NAME
    if not plain or path.is_absolute() or ".." in path.parts:
        raise refusals.MemberOutside(f"The archive has a member of the name {name[:LARGEST_NAME]!r}.")
    return path


def _check_names(files: Sequence[PurePosixPath]) -> None:
    """No name twice, also where capitals do not count; no file that is the folder of another."""
    folded = [PurePosixPath(str(path).casefold()) for path in files]
    folders = {folder for path in folded for folder in path.parents}
    if len(set(folded)) < len(folded) or folders & set(folded):
        raise refusals.MemberRepeated("Two members of the archive have the same name.")


def _of_the_model(files: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    configs = [path for path in files if path.name == CONFIG]
    if not configs:
        raise refusals.ArchiveInvalid(f"The archive has no {CONFIG}.")
    folder = min(configs, key=lambda path: len(path.parts)).parent
    beside = (path for path in files if path.parent == folder)
    return [path for path in beside if suffix_of(path.name) in MODEL_SUFFIXES and re.fullmatch(FILE_NAME, path.name)]


class _Narrow(io.RawIOBase):
    """A file of which no one reads much at once, nor all too much in all."""

    def __init__(self, file: IO[bytes], size: int, *, at_once: int, in_all: int | None = None) -> None:
        self._file = file
        self._size = size
        self._at_once = at_once
        self._left = in_all

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # all that is left
            size = self._size - self._file.tell()
        if size > self._at_once:
            raise refusals.ArchiveBomb("A header of the archive is larger than any that a model needs.")
        content = self._file.read(size)
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                raise refusals.ArchiveBomb("The headers of the archive are larger than any that a model needs.")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # The system would answer with the same error as for a disk that is broken.
        if whence == io.SEEK_SET and not 0 <= offset <= self._size:
            raise ValueError("one of its headers leads out of it")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _entries_of_tar(file: IO[bytes], limits: Limits) -> list[_Entry]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    headers = _Narrow(file, size, at_once=LARGEST_TAR_HEADER_BYTES, in_all=LARGEST_TAR_HEADERS_BYTES)
    entries: list[_Entry] = []
    with tarfile.open(fileobj=headers, mode="r:") as archive:
        for member in archive:
            entries.append(_entry_of_tar(file, member, size))
            if len(entries) > limits.files:
                break  # the list might have no end
    return entries


def _entry_of_tar(file: IO[bytes], member: tarfile.TarInfo, archive_bytes: int) -> _Entry:
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise refusals.MemberNoFile(f"The archive's member {member.name[:LARGEST_NAME]!r} is no plain file.")
    if member.isdir():
        return _Entry(member.name, 0, is_file=False, chunks=lambda: iter(()))
    if not 0 <= member.size <= archive_bytes - member.offset_data:
        raise refusals.ArchiveInvalid("The archive ends in the middle of a file.")
    chunks = _Slice(file, member.offset_data, member.size)
    return _Entry(member.name, member.size, is_file=True, chunks=chunks)


@dataclass(frozen=True)
class _Slice:
    """Bytes that lie in a file as they are."""

    file: IO[bytes]
    offset: int
    length: int

    def __call__(self) -> Iterator[bytes]:
        self.file.seek(self.offset)
        for start in range(0, self.length, CHUNK_BYTES):
            yield self.file.read(min(CHUNK_BYTES, self.length - start))


def _entries_of_zip(file: IO[bytes]) -> list[_Entry]:
    size = file.seek(0, io.SEEK_END)
    narrow = _Narrow(file, size, at_once=CHUNK_BYTES)
    archive = zipfile.ZipFile(narrow)
    members = archive.infolist()
    if sum(member.compress_size for member in members) > size:
        raise refusals.ArchiveBomb("Members of the archive share their bytes.")
    return [_entry_of_zip(archive, member) for member in members]


def _entry_of_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusals.MemberNoFile(f"The archive's member {member.filename[:LARGEST_NAME]!r} is no plain file.")
    if member.flag_bits & 1 or member.compress_type not in READABLE_ZIP:
        raise refusals.MemberUnreadable(f"The archive's member {member.filename[:LARGEST_NAME]!r} cannot be read.")
    if member.file_size > max(SMALL_BYTES, LARGEST_RATIO * member.compress_size):
        raise refusals.ArchiveBomb(f"A file in the archive claims to become {member.file_size} bytes.")
    # `ZipInfo` cuts a name at NUL, makes slashes of a system's own separator, and cannot tell what an empty name is of.
    is_file = not member.filename.endswith("/")
    return _Entry(member.orig_filename, member.file_size, is_file=is_file, chunks=_Inflated(archive, member))


@dataclass(frozen=True)
class _Inflated:
    """A member of a zip, at most as long as its header says, its checksum verified."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def __call__(self) -> Iterator[bytes]:
        left = self.member.file_size
        with _as_invalid(), self.archive.open(self.member) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                left -= len(chunk)
                yield chunk
        if left:
            raise refusals.ArchiveInvalid("A file in the archive is shorter than its header says.")
