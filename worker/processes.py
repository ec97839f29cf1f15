"""Starts and ends the processes that make up a service on one host. Knows nothing of what they do."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sentinel.errors import SentinelError
from worker.tether import tethered

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 8.0  # a worker gives back its job, the API ends its streams

Process = subprocess.Popen[bytes]


class ServiceStopped(SentinelError):
    """A part of the service ended, or did not start."""

    code = "service_stopped"
    next_step = "Read the log file if the message names one; if a port is taken, pass another with --port."


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a command that ends with this process, in a group of its own so that a terminal's Ctrl-C reaches only us.

    Call it from a thread that lives as long as the command should: Linux ties the two.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            tethered(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )


def end(process: Process) -> None:
    """Ask the process to end, then make it; a second Ctrl-C makes it at once."""
    try:
        process.terminate()
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        logger.warning("process %d does not end by itself", process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], bool], process: Process, *, log: Path) -> None:
    """Poll until the condition holds.

    Raises:
        ServiceStopped: The process ended before, or took too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceStopped(f"The {log.stem} process did not start; see {log}.")
        time.sleep(0.05)
