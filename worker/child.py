"""The worker's side of runner processes: start, assign, listen, kill.

Knows the pipe protocol of `worker.runner` and what a child may see of this process's
environment. Knows nothing of jobs, leases or the database.
"""

import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from sentinel.errors import SentinelError
from sentinel.events import EVENT_ADAPTER, CheckpointSaved, Event
from worker.fork_server import Streams
from worker.runner import READY, Assignment

logger = logging.getLogger(__name__)

# -P: the child must not import what an experiment writes into its folder.
RUNNER = ("-P", "-m", "worker.runner")

# What a child may inherit: paths, locale, proxies, where the hub and its files are, how it logs, and the settings of
# its numerical libraries. Not the hub's token, which is handed to those that need it, nor what else may be a secret.
INHERITED_NAMES = frozenset(
    {"PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "SENTINEL_LOG_FORMAT", "SENTINEL_CACHE"}
    | {"HF_HOME", "HF_ENDPOINT", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"}
)
INHERITED_PREFIXES = ("HF_HUB_", "HF_DATASETS_", "HF_XET_", "CUDA", "OMP_", "MKL_", "TORCH", "PYTORCH_", "LC_")
PROXY_NAMES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"})
SCRATCH_FOLDERS = {"HOME": "home", "TMPDIR": "tmp"}
READY_TIMEOUT_S = 300.0  # a cold import of torch from a slow disk
EXIT_TIMEOUT_S = 30.0
LONG_LINE_BYTES = 400  # a line of JSON, without an exception


class RunnerUnavailable(SentinelError):
    """This worker cannot start a runner, so it takes no job."""

    code = "runner_unavailable"
    next_step = "Read the runner's log lines above; the worker's installation is likely broken."


def child_environment(environment: Mapping[str, str], *, scratch: Path) -> dict[str, str]:
    """The part of `environment` that a runner may see.

    Its home and its temporary files are in `scratch`, and go with it; what libraries download or compile is kept for
    the next runners, in the worker's own cache and in nobody's home.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in INHERITED_NAMES or name.startswith(INHERITED_PREFIXES) or name.upper() in PROXY_NAMES
    }
    folders = {name: str(scratch / folder) for name, folder in SCRATCH_FOLDERS.items()}
    cache = kept.get("SENTINEL_CACHE", folders["HOME"])
    return kept | folders | {"XDG_CACHE_HOME": cache, "MPLBACKEND": "agg", "PYTHONUNBUFFERED": "1"}


class Process(Protocol):
    """What a runner's owner needs of its process; see `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; `subprocess.TimeoutExpired` after so many seconds."""


class Start(Protocol):
    """Starts a runner's process, in a session of its own, in a folder."""

    def __call__(self, streams: Streams, folder: Path, environment: Mapping[str, str]) -> Process:
        """Whoever calls it closes its own copies of the streams."""


def spawn(streams: Streams, folder: Path, environment: Mapping[str, str]) -> Process:
    """Start a runner that has yet to import everything."""
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        [sys.executable, *RUNNER],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )


class Runner:
    """One child process with its own folder, session and log; runs one assignment and ends.

    The folder is gone if it does not start.

    Args:
        environment: Variables beside this process's own, to say on which device it runs and where its cache is.

    Attributes:
        folder: The child's scratch folder; `output` in it is its working directory.
        log: What the child and its libraries printed.
        newest_state: The last state that it has told of, among events that nobody may have taken yet.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], start: Start = spawn) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.log = folder / "runner.log"
        self.newest_state: CheckpointSaved | None = None
        self._ready = threading.Event()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name=f"listener-{folder.name}", daemon=True)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            for each in (self.output, *(folder / name for name in SCRATCH_FOLDERS.values())):
                each.mkdir(parents=True)
            self._process = self._start(start, child_environment({**os.environ, **environment}, scratch=folder))
            undo.callback(self.kill)
            self._listener.start()
            undo.pop_all()

    def _start(self, start: Start, environment: Mapping[str, str]) -> Process:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._stdin = os.fdopen(ours_in, "w", encoding="utf-8")  # it stays open as our sign of life
        self._stdout = os.fdopen(ours_out, encoding="utf-8")
        try:
            with self.log.open("wb") as log:
                return start(Streams(theirs_in, theirs_out, log.fileno()), self.output, environment)
        except BaseException:
            self._stdin.close()
            self._stdout.close()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group and session."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait until the child has imported torch; false if `stop` was set before.

        Raises:
            RunnerUnavailable: The child ended instead, or took too long.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (ready := self._ready.wait(0.1)) and self.alive and time.monotonic() < deadline:
            if stop.is_set():
                return False
        if not (ready and self.alive):  # a forked one is ready at once, and may have ended since
            raise RunnerUnavailable(f"The runner did not get ready:\n{self.log_tail()}")
        return True

    def assign(self, assignment: Assignment) -> None:
        """Hand over the one assignment; stdin stays open as the child's sign of life from us."""
        try:
            self._stdin.write(assignment.model_dump_json() + "\n")
            self._stdin.flush()
        except BrokenPipeError:
            logger.warning("runner %d ended before its assignment", self.pid)

    def next_events(self, *, wait_s: float, limit: int) -> tuple[list[Event], bool]:
        """Events since the last call, at most `limit`, waiting `wait_s` for the first; and whether the child ended."""
        events: list[Event] = []
        try:
            event = self._events.get(timeout=wait_s)
            while event is not None:
                events.append(event)
                if len(events) == limit:
                    return events, False
                event = self._events.get_nowait()
        except queue.Empty:
            return events, False
        return events, True

    def wait(self) -> int:
        """Exit code; a negative one is the signal that ended the child. Kills a child that does not end."""
        try:
            return self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End the child and its whole process group now. May be called from any thread, any number of times."""
        if self.alive:
            with suppress(ProcessLookupError):
                _kill_group(self.pid)
            self._process.wait()

    def close(self) -> None:
        """End the child and let go of its pipes and its folder."""
        self.kill()
        self._listener.join()
        with suppress(BrokenPipeError):
            self._stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        with self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LONG_LINE_BYTES * lines))
            text = log.read().decode("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _listen(self) -> None:
        """Turn the child's lines into events until its stdout closes."""
        with self._stdout as lines:
            try:
                for line in lines:
                    if line.strip() == READY:
                        self._ready.set()
                    else:
                        self._hear(EVENT_ADAPTER.validate_json(line))
            except ValidationError:
                logger.exception("runner %d wrote what is no event", self.pid)
                self.kill()
        self._events.put(None)

    def _hear(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            self.newest_state = event
        self._events.put(event)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:  # it is gone, or so young that it leads no group yet
        os.kill(leader, signal.SIGKILL)
