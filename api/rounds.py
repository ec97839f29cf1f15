"""Threads that do something again and again beside the requests, and survive what goes wrong in a round."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

logger = logging.getLogger(__name__)


@contextmanager
def repeating(name: str, task: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Run `task` now and every `every_s` seconds, in a thread, until the block ends."""
    stop = Event()

    def run() -> None:
        while True:
            try:
                task()
            except Exception:
                # What is away now, a database say, may be back in the next round.
                logger.exception("A round of the %s failed; it goes on trying.", name)
            if stop.wait(every_s):
                return

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
