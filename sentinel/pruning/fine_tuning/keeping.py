"""When a training state is kept: rarely enough that training does not wait for it."""

import time
from collections.abc import Callable
from pathlib import Path

# At most this share of the time goes into keeping states.
SHARE = 0.05


class PeriodicKeeper:
    """Keeps a state whenever some time has passed since the last one.

    Args:
        save: Called with the step, and what writes the training's files into a folder that exists.
        interval_s: Seconds between two, at least; more where one takes long to write. 0 keeps one whenever it can be.
    """

    def __init__(self, save: Callable[[int, Callable[[Path], None]], None], *, interval_s: float) -> None:
        self._save = save
        self._interval_s = interval_s
        self._due_at = time.monotonic() + interval_s

    def due(self) -> bool:
        """Whether the time has passed."""
        return time.monotonic() >= self._due_at

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep one."""
        began = time.monotonic()
        self._save(step, write)
        ended = time.monotonic()
        self._due_at = ended + max(self._interval_s, (ended - began) / SHARE if self._interval_s else 0)
