"""Keeps a copy of a runner's log in the storage, where readers of the job find it while the attempt runs and after.

The last copy is what a worker that is killed leaves behind. Knows nothing of jobs; what goes wrong here is no reason
to fail an attempt.
"""

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Self

from api.store.errors import StorageUnavailable

COPY_S = 3.0
LARGEST_LIVE_BYTES = 8 * 1024 * 1024  # what is longer is copied at the end only
logger = logging.getLogger(__name__)


class LogCopy:
    """Copies `log` again and again while the context is open, and once more at its end.

    Args:
        store: Puts the file where it belongs.
    """

    def __init__(self, log: Path, store: Callable[[Path], object]) -> None:
        self._log = log
        self._store = store
        self._copied_bytes = -1
        self._closed = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._repeat,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()
        self._copy(self._size())

    def _repeat(self) -> None:
        while not self._closed.wait(COPY_S):
            size = self._size()
            if size <= LARGEST_LIVE_BYTES:
                self._copy(size)

    def _size(self) -> int:
        return self._log.stat().st_size

    def _copy(self, size: int) -> None:
        if size == self._copied_bytes:
            return
        try:
            self._store(self._log)
            self._copied_bytes = size
        except (OSError, StorageUnavailable) as error:
            logger.warning("the log could not be copied: %s", error)
