"""A process that imports what runners need once, and forks one when asked, warm from its first moment.

Importing torch and transformers costs a processor several seconds; a small job takes no longer itself. Linux only, and
only for runners that stay away from CUDA, whose driver does not survive a fork. Knows nothing of jobs.

A worker asks with one datagram: an `Order`, and the runner's three standard streams and a pipe with it. The pipe tells
the runner's process id, and later its exit code; it closes without one if the fork server was killed, and then the
kernel has killed its runners too.
"""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from sentinel.utils import logs
from worker import runner
from worker.tether import tie_to

ORDER_BYTES = 1 << 20  # an environment with all its variables
STREAMS = 3
# -P as for a runner: what an experiment writes into its folder must not be imported.
SERVER = ("-P", "-m", "worker.fork_server")


class Order(BaseModel):
    """Where the next runner works, and its environment variables."""

    folder: Path
    environment: dict[str, str]


class Streams(NamedTuple):
    """File descriptors of a runner's standard streams; whoever starts it closes its own copies."""

    stdin: int
    stdout: int
    stderr: int


class _Server(NamedTuple):
    process: "subprocess.Popen[bytes]"
    control: socket.socket


class ForkServer:
    """The worker's side: starts the process when a runner is wanted, and again should it have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def start(self, streams: Streams, folder: Path, environment: Mapping[str, str]) -> "Forked":
        """Ask for a runner; a new server logs to its `stderr`, as it may never get to fork it."""
        with self._lock:
            if self._server is not None and self._server.process.poll() is not None:
                self._server.control.close()
                self._server = None
            if self._server is None:
                self._server = _launch(streams, folder, environment)
            told, tell = Pipe(duplex=False)
            order = Order(folder=folder, environment=dict(environment)).model_dump_json().encode()
            with tell, suppress(BrokenPipeError, ConnectionResetError):  # it has just ended: the pipe tells so
                socket.send_fds(self._server.control, [order], [*streams, tell.fileno()])
            return Forked(told)

    def close(self) -> None:
        """Kill the server, and its runners with it."""
        with self._lock:
            if self._server is not None:
                self._server.process.kill()
                self._server.process.wait()
                self._server.control.close()


def _launch(streams: Streams, folder: Path, environment: Mapping[str, str]) -> _Server:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *SERVER, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=streams.stderr,
            stderr=streams.stderr,
            cwd=folder.parent,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return _Server(process, ours)


class Forked:
    """A runner that the server has forked, or is about to: what a runner's owner needs of `subprocess.Popen`."""

    def __init__(self, told: Connection) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        """Process id, once it is forked.

        Raises:
            ProcessLookupError: It never was.
        """
        while self.poll() is None and self._pid is None:
            wait([self._told])
        if self._pid is None:
            raise ProcessLookupError("the fork server ended before it forked this runner")
        return self._pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs; a negative one is the signal that ended it."""
        with self._lock:
            while self._exit_code is None and self._told.poll():
                self._hear()
        return self._exit_code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code.

        Raises:
            subprocess.TimeoutExpired: After so many seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            remaining = None if until is None else until - time.monotonic()
            if not wait([self._told], remaining):
                raise subprocess.TimeoutExpired("a forked runner", timeout or 0)
        return code

    def _hear(self) -> None:
        try:
            number = int(self._told.recv_bytes())
        except EOFError:
            self._exit_code = -signal.SIGKILL
            return
        if self._pid is None:
            self._pid = number
        else:
            self._exit_code = number


def main() -> None:
    """Warm up, serve; what comes after is the life of a forked runner."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _warm_up(control)
    serve(control)
    runner.main()


def _warm_up(control: socket.socket) -> None:
    """Import, and end in the middle of it if the worker ends: no thread may run when forking begins."""
    warm = threading.Event()
    hung_up = select.poll()
    hung_up.register(control, 0)

    def watch() -> None:
        while not warm.wait(0.2):
            if hung_up.poll(0):
                os._exit(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        runner.warm_up()
    finally:
        warm.set()
        watcher.join()
    gc.collect()
    gc.freeze()  # so that a collection in a runner leaves the shared pages shared


def serve(control: socket.socket) -> None:
    """Fork a runner for every order; returns in the runner. Exits when the worker has closed its side."""
    forked: dict[int, Connection] = {}
    ended = _told_of_ends()
    while True:
        for ready in wait([control, ended]):
            if ready is ended:
                ended.recv(ORDER_BYTES)
                _report_ends(forked)
                continue
            order, descriptors, _, _ = socket.recv_fds(control, ORDER_BYTES, STREAMS + 1)
            if not order:
                sys.exit()
            *streams, told = descriptors
            tell = Connection(told, readable=False)
            pid = _fork(streams)
            if pid == 0:
                _let_go(control, ended, tell, *forked.values())
                _become(Order.model_validate_json(order), streams)
                return
            for descriptor in streams:
                os.close(descriptor)
            if pid is None:
                tell.close()
            else:
                forked[pid] = tell
                _tell(tell, pid)


def _told_of_ends() -> socket.socket:
    """Something to read from whenever a runner has ended."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)  # the descriptor must not block
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler Python does not write to the descriptor
    signal.set_wakeup_fd(theirs.detach())
    return ours


def _fork(streams: list[int]) -> int | None:
    """As `os.fork`; None if the system has no room for another process, which the runner's log says then."""
    server = os.getpid()
    try:
        with warnings.catch_warnings():
            # Of threads that Python did not start: allocators' and BLAS's, which provide for a fork themselves.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        os.write(streams[-1], f"no runner can be forked: {error}\n".encode())
        return None
    if pid == 0:
        tie_to(server, signal.SIGKILL)
    return pid


def _report_ends(forked: dict[int, Connection]) -> None:
    for pid in list(forked):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forked.pop(pid) as tell:
                _tell(tell, os.waitstatus_to_exitcode(status))


def _tell(pipe: Connection, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know any more
        pipe.send_bytes(str(number).encode())


def _let_go(*opened: socket.socket | Connection) -> None:
    """Close what is the server's alone."""
    os.close(signal.set_wakeup_fd(-1))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in opened:
        each.close()


def _become(order: Order, streams: list[int]) -> None:
    """Take on what a process of its own would have been started with."""
    os.setsid()
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(order.folder)
    os.environ.update(order.environment)
    tempfile.tempdir = None  # the variable has changed


if __name__ == "__main__":
    logs.configure(logs.LogFormat(os.environ.get("SENTINEL_LOG_FORMAT") or "text"))
    main()
