"""A folder that appears complete or not at all: its files gather in a hidden one beside it until all are there.

The hidden folder `.NAME.partial` has the same name every time, so that whoever comes after a crash goes on with what is
there; a lock keeps two from writing at once, and a list of the files' hashes tells whether what is there is still
wanted. Knows nothing of where bytes come from, and trusts neither their names nor their contents.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from sentinel.errors import Fault, SentinelError
from sentinel.replies import Artifact

BLOCK_BYTES = 1024 * 1024


class FolderNotEmpty(SentinelError):
    """A download would overwrite files."""

    code = "folder_not_empty"
    fault = Fault.USER
    next_step = "Name a folder that does not exist yet."


class DownloadUnderWay(SentinelError):
    """Somebody else is downloading into the same place."""

    code = "download_under_way"
    fault = Fault.USER
    next_step = "Wait until the other download has ended, or name another folder."


class DownloadDamaged(SentinelError):
    """What arrived is not what the service announced."""

    code = "download_damaged"
    next_step = (
        "Download again, which keeps the files that were right; if it stays so, the service's storage is damaged."
    )


class PartialFile:
    """As much of a file as has arrived.

    Args:
        path: Where it gathers.
        announced: What it must become.

    Attributes:
        size: Bytes that are there.
    """

    def __init__(self, path: Path, announced: Artifact) -> None:
        self._announced = announced
        self._digest = hashlib.sha256()
        self.size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        while block := self._file.read(BLOCK_BYTES):
            self._take(block)
        # Bytes of an earlier process, of which a crash of the machine may have spoilt some.
        self._is_doubtful = self.size > 0

    def append(self, chunk: bytes) -> None:
        """Take what comes next.

        Raises:
            DownloadDamaged: The file has got longer than it was announced.
        """
        if self.size + len(chunk) > self._announced.bytes:
            self._refuse("is longer than announced")
        self._file.write(chunk)
        self._take(chunk)

    def start_over(self) -> None:
        """Drop what is there."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0
        self._is_doubtful = False

    def is_right(self) -> bool:
        """Whether the file is what was announced; if not, and old bytes may be the reason, they are dropped.

        Raises:
            DownloadDamaged: It is not, and all of it has just arrived.
        """
        if self._digest.hexdigest() == self._announced.sha256:
            os.fsync(self._file.fileno())
            return True
        if not self._is_doubtful:
            self._refuse("does not have its announced sha256")
        self.start_over()
        return False

    def close(self) -> None:
        """Leave it as it is."""
        self._file.close()

    def _take(self, block: bytes) -> None:
        self._digest.update(block)
        self.size += len(block)

    def _refuse(self, why: str) -> None:
        self.start_over()
        raise DownloadDamaged(f"The file {self._announced.path!r} {why}.")


class UnfinishedFolder:
    """The hidden folder, held against others while it is a context.

    Args:
        folder: What it becomes.
        files: Name in the folder → what the service announced.

    Raises:
        DownloadDamaged: A name leads out of the folder.
    """

    def __init__(self, folder: Path, files: Mapping[str, Artifact]) -> None:
        self._folder = folder.absolute()
        self._hidden = self._folder.parent / f".{self._folder.name}.partial"
        self._files = self._hidden / "files"
        self._list = self._hidden / "files.json"
        self._redirected = self._hidden / "redirected"
        self._wanted = dict(files)
        for name in files:
            if not (self._files / name).resolve().is_relative_to(self._files.resolve()):
                raise DownloadDamaged(f"The service announced {name!r}, which is no file of a checkpoint.")

    def __enter__(self) -> Self:
        """Take hold of it.

        Raises:
            DownloadUnderWay: Somebody else has.
            FolderNotEmpty: The folder is there already.
        """
        from filelock import FileLock, Timeout  # with asyncio, which only downloads need

        self._check_free()
        self._lock = FileLock(self._hidden / "lock", blocking=False)
        try:
            self._lock.acquire()
        except Timeout as held:
            raise DownloadUnderWay(f"Another process is downloading into {self._folder}.") from held
        try:
            self._check_free()  # the one that held the lock may just have finished
            self._drop_unwanted()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not any(path.stat().st_size for path in self._files.rglob("*") if path.is_file()):
            shutil.rmtree(self._hidden, ignore_errors=True)
        self._lock.release()

    @property
    def redirected(self) -> bool:
        """Whether the service has sent us to a storage for any of the files."""
        return self._redirected.exists()

    def remember_redirect(self) -> None:
        """Note that it has."""
        self._redirected.touch()

    def open(self, name: str) -> PartialFile:
        """One of its files; what is there of it is read."""
        return PartialFile(self._files / name, self._wanted[name])

    def publish(self) -> None:
        """Let the folder appear; every file must be right."""
        self._files.rename(self._folder)

    def _check_free(self) -> None:
        folder = self._folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FolderNotEmpty(f"{folder} exists already.")

    def _drop_unwanted(self) -> None:
        """Keep nothing of what an earlier download wanted, unless it wanted the same."""
        wanted = json.dumps({name: file.sha256 for name, file in self._wanted.items()}, sort_keys=True)
        if not (self._list.exists() and self._list.read_text(encoding="utf-8") == wanted):
            shutil.rmtree(self._files, ignore_errors=True)
            self._redirected.unlink(missing_ok=True)
            self._list.write_text(wanted, encoding="utf-8")
        self._files.mkdir(exist_ok=True)
