"""Where files live: one interface over a local folder or an object store. Knows keys and bytes, not jobs' states.

Keys are made of ids and hashes only, never of anything a user wrote.
"""

import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from api.store.errors import ObjectDamaged, ObjectMissing

PART_BYTES = 4 * 1024 * 1024
KEYS_AT_ONCE = 1000


class Stored(NamedTuple):
    """A file as the storage holds it; `key` ends in `sha256`, `bytes` is its size."""

    sha256: str
    bytes: int
    key: str


def attempt_prefix(job_id: str, token: int) -> str:
    """The folder of everything that one claim writes."""
    return f"jobs/{job_id}/attempts/{token}"


class Storage:
    """Immutable files under content-addressed keys.

    Args:
        uri: `file:///folder`, made if missing; any URI that `obstore` opens works alike.
    """

    def __init__(self, uri: str) -> None:
        self._store = (
            LocalStore.from_url(uri, mkdir=True, automatic_cleanup=True) if uri.startswith("file:") else from_url(uri)
        )

    def put_file(self, path: Path, prefix: str) -> Stored:
        """Store a file as `<prefix>/<sha256>`, durably, and read it back to be sure.

        Raises:
            ObjectDamaged: What was read back is not what was written.
            OSError: With ENOSPC or EDQUOT: there is no space left.
        """
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{prefix}/{sha256}"
        with _telling_of_full_disks(key):
            obstore.put(self._store, key, path)
        if isinstance(self._store, LocalStore):
            _sync(Path(str(self._store.prefix)), key)
        return Stored(sha256, _verify(key, sha256, self.iterate(key)), key)

    def iterate(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes from `offset`, `length` of them or all that follow, in parts.

        Raises:
            ObjectMissing: Nothing lies under the key.
        """
        end = self.head(key) if length is None else offset + length
        # Asked for part by part: a stream of a local file comes in pieces so small that it takes ten times as long.
        for start in range(offset, end, PART_BYTES):
            try:
                yield bytes(obstore.get_range(self._store, key, start=start, end=min(start + PART_BYTES, end)))
            except FileNotFoundError as error:
                raise ObjectMissing(key) from error

    def download(self, key: str, path: Path, sha256: str) -> None:
        """Copy an object into a file that appears only when it is complete and right.

        Raises:
            ObjectMissing: Nothing lies under the key.
            ObjectDamaged: The bytes do not have this hash; no file is left.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                _verify(key, sha256, _copy(self.iterate(key), file))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def older_than(self, age_s: float, *, prefix: str) -> Iterator[list[str]]:
        """Keys under a prefix that were written longer ago, some at a time; how long is told by this host's clock."""
        limit = datetime.now(UTC) - timedelta(seconds=age_s)
        for found in obstore.list(self._store, prefix, chunk_size=KEYS_AT_ONCE):
            keys = [entry["path"] for entry in found if entry["last_modified"] <= limit]
            if keys:
                yield keys

    def delete(self, keys: Collection[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            obstore.delete(self._store, sorted(keys))

    def head(self, key: str) -> int:
        """Size in bytes.

        Raises:
            ObjectMissing: Nothing lies under the key.
        """
        try:
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error


@contextmanager
def _telling_of_full_disks(key: str) -> Iterator[None]:
    """The storage library has one error for everything that a disk can say; the number is in its text only."""
    try:
        yield
    except BaseError as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"(os error {number})" in str(error):
                raise OSError(number, os.strerror(number), key) from error
        raise


def _verify(key: str, sha256: str, chunks: Iterable[bytes]) -> int:
    """Number of bytes, once their hash has proved right."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    if digest.hexdigest() != sha256:
        raise ObjectDamaged(key, expected=sha256, found=digest.hexdigest())
    return size


def _copy(chunks: Iterable[bytes], file: IO[bytes]) -> Iterator[bytes]:
    """Pass chunks on and write each to the file."""
    for chunk in chunks:
        file.write(chunk)
        yield chunk


def _sync(root: Path, key: str) -> None:
    """Bring a file, and the names of the folders that lead to it, onto the disk."""
    path = root / key
    for place in (path, *path.parents[: len(Path(key).parts)]):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
