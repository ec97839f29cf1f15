"""Notices that the server has been asked to stop, while requests that wait can still be answered.

ASGI tells an application only after the last response; until then long polls and event streams would hold the
server up, and be cut off in the end.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noticing_stop(stopping: threading.Event) -> Iterator[None]:
    """Set `stopping` when a stop signal comes, before the server's own handler runs.

    A server that runs in another thread than the main one gets no signals, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is no function is the system's default: replacing that would make the process deaf.
    handlers = {number: old for number in STOP_SIGNALS if callable(old := signal.getsignal(number))}

    def notice(number: int, frame: FrameType | None) -> None:
        stopping.set()
        handlers[signal.Signals(number)](number, frame)

    for number in handlers:
        signal.signal(number, notice)
    try:
        yield
    finally:
        for number, old in handlers.items():
            signal.signal(number, old)
