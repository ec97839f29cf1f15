"""The folder in which one worker process keeps its runners' files.

Knows how to tell whether the owner of a folder still lives: it holds a file lock, which the
kernel drops with the process, however it ended.
"""

import fcntl
import shutil
import tempfile
from pathlib import Path

LOCK = "lock"


class Scratch:
    """A private folder under `parent`; opening one removes those that killed workers left there."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        for folder in parent.glob("[!.]*"):
            _remove_if_abandoned(folder)
        # Hidden until it is locked, so that another worker that starts now does not take it for abandoned.
        hidden = Path(tempfile.mkdtemp(prefix=".", dir=parent)).resolve()
        self._lock = (hidden / LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))

    def new_folder(self) -> Path:
        """A fresh folder for one runner."""
        return Path(tempfile.mkdtemp(prefix="runner-", dir=self._folder))

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def is_in_use(parent: Path) -> bool:
    """Whether a living worker has a folder under `parent`."""
    return any(_is_held(lock) for lock in parent.glob(f"*/{LOCK}"))


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Its owner lives, or another worker has just removed it.
        return
    shutil.rmtree(folder, ignore_errors=True)
