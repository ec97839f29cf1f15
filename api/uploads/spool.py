"""Files on this host that bodies go into until they have proved right and lie in the storage."""

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from api.refusals import SpaceExhausted
from api.settings import Settings

KEPT_FREE_BYTES = 1024**3  # for the database, which may lie on the same disk


class Spooled(NamedTuple):
    """An open file that goes when it is closed."""

    file: IO[bytes]
    path: Path


class Spool:
    """The folder of such files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def room(self, size: int) -> Iterator[Spooled]:
        """A file that can take so many bytes.

        Raises:
            SpaceExhausted: The disk or the storage is full, now or while the block runs.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < size + KEPT_FREE_BYTES:
            raise SpaceExhausted
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder) as file:
                yield Spooled(file.file, Path(file.name))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpaceExhausted from error
            raise

    def sweep(self, *, idle_s: float) -> None:
        """Remove what a process that was killed left behind."""
        for path in self._folder.glob("*"):
            with suppress(FileNotFoundError):  # its request has just ended
                if path.stat().st_mtime < time.time() - idle_s:
                    path.unlink()


def spool_of(settings: Settings) -> Spool:
    """Where an API process has it."""
    return Spool(settings.home / "spool")
