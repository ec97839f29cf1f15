"""Turns the stream of a checkpoint's tar into a folder, or into nothing.

Trusts no member of the tar: only the files that were announced are written, each must have its
announced hash, and the folder appears only when all of them are there.
"""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from sentinel.errors import SentinelError

CHUNK_BYTES = 1024 * 1024


class DownloadDamaged(SentinelError):
    """What arrived is not what the service announced."""

    code = "download_damaged"
    next_step = "Download again; if it stays so, the service's storage is damaged."


class _Stream:
    """Reads an iterator of chunks like a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        parts = [self._rest]
        have = len(self._rest)
        while have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def unpack(chunks: Iterable[bytes], *, expected: Mapping[str, str], folder: Path) -> None:
    """Write the files of a tar stream into `folder`, which must not exist yet.

    Args:
        chunks: The tar's bytes.
        expected: Member name → sha256 of every file that must arrive.
        folder: Appears complete or not at all.

    Raises:
        DownloadDamaged: A file is unannounced, damaged or missing, or the tar is cut short.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_members(chunks, expected, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_members(chunks: Iterable[bytes], expected: Mapping[str, str], folder: Path) -> None:
    missing = dict(expected)
    try:
        # The stub asks for more of a file than a stream mode uses.
        with tarfile.open(fileobj=_Stream(chunks), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                _write_member(tar, member, missing.pop(member.name, None), folder)
    except tarfile.TarError as error:
        raise DownloadDamaged(f"The stream is no complete tar: {error}") from error
    if missing:
        raise DownloadDamaged(f"Files are missing from the download: {', '.join(sorted(missing))}.")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, sha256: str | None, folder: Path) -> None:
    target = folder / member.name
    content = tar.extractfile(member) if member.isreg() else None
    if sha256 is None or content is None or not target.resolve().is_relative_to(folder.resolve()):
        raise DownloadDamaged(f"The download holds {member.name!r}, which was not announced as a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if _copy(content, target) != sha256:
        raise DownloadDamaged(f"The file {member.name!r} does not have its announced sha256.")


def _copy(content: IO[bytes], target: Path) -> str:
    """Write a file; returns its sha256."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
