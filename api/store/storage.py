"""Where files live: one interface over a local folder or an object store. Knows keys and bytes, not jobs' states.

Keys are made of ids and hashes only, never of anything a user wrote.
"""

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

import obstore
from obstore.store import LocalStore, S3Store

from api.store.errors import ObjectDamaged, ObjectMissing
from api.store.opening import open_store, telling

# S3 takes at most 10,000 parts an upload: with these, files of up to 78 GiB.
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4  # so that an upload holds 32 MiB in memory, and a slow line still ends each part within its 30 s
KEYS_AT_ONCE = 1000
LOG_NAME = "log"


class Stored(NamedTuple):
    """A file as the storage holds it; `key` ends in `sha256`, `bytes` is its size."""

    sha256: str
    bytes: int
    key: str


def attempt_prefix(job_id: str, token: int) -> str:
    """The folder of everything that one claim writes."""
    return f"jobs/{job_id}/attempts/{token}"


def log_key(job_id: str, token: int) -> str:
    """Where the log of a claim lies; the claim's attempt is the row that names it."""
    return f"{attempt_prefix(job_id, token)}/{LOG_NAME}"


class Storage:
    """Immutable files under content-addressed keys, and logs that grow.

    Args:
        uri: `file:///folder`, made if missing, or `s3://bucket/prefix`, whose bucket must be there.

    Raises:
        StorageUriInvalid: It is neither. Every method raises `StorageUnavailable` if the storage does not do its part.
    """

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)

    def check(self) -> None:
        """Ask the storage for anything, to be sure that it is there."""
        with telling(self._store, ""):
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def put_file(self, path: Path, prefix: str, *, counted_on: Collection[str] = ()) -> Stored:
        """Store a file as `<prefix>/<sha256>`, durably, and read it back part by part to be sure.

        A large one goes to S3 in parts; it is there once all of them are. What lies right under a key that is
        `counted_on` already is only read: a write that goes wrong would take it from those who count on it.

        Raises:
            ObjectDamaged: What was read back is not what was written.
            OSError: With ENOSPC or EDQUOT: there is no space left.
        """
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{prefix}/{sha256}"
        if key in counted_on:
            with suppress(ObjectMissing, ObjectDamaged):
                return Stored(sha256, _verify(key, sha256, self.iterate(key)), key)
        with telling(self._store, key):
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        if isinstance(self._store, LocalStore):
            _sync(Path(str(self._store.prefix)), key)
        return Stored(sha256, _verify(key, sha256, self.iterate(key)), key)

    def put_log(self, path: Path, key: str) -> None:
        """Store a log under its `log_key`, in the place of the shorter one that was there. It need not survive a crash.

        Raises:
            OSError: As in `put_file`.
        """
        with telling(self._store, key):
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def iterate(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes from `offset`, `length` of them or all that follow, in parts.

        Raises:
            ObjectMissing: Nothing lies under the key.
        """
        end = self.head(key) if length is None else offset + length
        # Asked for part by part: a stream of a local file comes in pieces so small that it takes ten times as long,
        # and one from S3 would have to end within the time limit of a request, however slow its reader.
        for start in range(offset, end, PART_BYTES):
            with telling(self._store, key):
                part = obstore.get_range(self._store, key, start=start, end=min(start + PART_BYTES, end))
            yield bytes(part)

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
        pages = iter(obstore.list(self._store, prefix, chunk_size=KEYS_AT_ONCE))
        while True:
            with telling(self._store, prefix):
                found = next(pages, None)
            if found is None:
                return
            keys = [entry["path"] for entry in found if entry["last_modified"] <= limit]
            if keys:
                yield keys

    def drop_unfinished(self, age_s: float, *, prefix: str) -> None:
        """Remove what writers left that were killed in the middle of a file, longer ago; a bucket has its own rule."""
        if not isinstance(self._store, LocalStore):
            return
        limit = time.time() - age_s
        for path in (Path(str(self._store.prefix)) / prefix).rglob("*#*"):  # the library's name for such a file
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= limit:
                    path.unlink()

    def delete(self, keys: Collection[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        named = sorted(keys)
        # Of several local files `obstore` deletes none behind one that is gone; S3 does not mind such keys.
        for some in [named] if isinstance(self._store, S3Store) else [[key] for key in named]:
            with suppress(ObjectMissing), telling(self._store, some[0] if len(some) == 1 else "these keys"):
                obstore.delete(self._store, some)

    def head(self, key: str) -> int:
        """Size in bytes.

        Raises:
            ObjectMissing: Nothing lies under the key.
        """
        with telling(self._store, key):
            return obstore.head(self._store, key)["size"]

    def check_whole(self, key: str, size: int) -> None:
        """See that an object is there and has so many bytes; which ones they are is not looked at.

        Raises:
            ObjectMissing: Nothing lies under the key.
            ObjectDamaged: It has more or fewer.
        """
        found = self.head(key)
        if found != size:
            raise ObjectDamaged(key, expected=f"{size} bytes", found=f"{found} bytes")

    def presign(self, key: str, *, valid_s: float) -> str | None:
        """A URL from which whoever has it can read the object for a while; None if this storage has no such thing."""
        if not isinstance(self._store, S3Store):
            return None
        with telling(self._store, key):
            return obstore.sign(self._store, "GET", key, timedelta(seconds=valid_s))


def _verify(key: str, sha256: str, chunks: Iterable[bytes]) -> int:
    """Number of bytes, once their hash has proved right."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    if digest.hexdigest() != sha256:
        raise ObjectDamaged(key, expected=f"sha256 {sha256}", found=f"sha256 {digest.hexdigest()}")
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
