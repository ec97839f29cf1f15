"""The whole service on one host: Redis, API and one worker as child processes of this one.

Knows how to start them in order, to replace a worker that died, and to leave no process, port or
socket behind on any way out. `python -m worker.embedded` runs it until Ctrl-C; demo and tests use
`EmbeddedService` as a context.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx

from api.settings import Settings
from api.store import audit, keys
from api.store.audit import Actor
from api.store.database import create_database, upgrade
from sentinel.utils import logs
from worker.processes import Process, ServiceStopped, end, start, wait_until
from worker.redis_server import private_redis

logger = logging.getLogger(__name__)

TENANT = "local"
RESTART_PAUSE_S = 1.0
API_FACTORY = "api.main:app"
API_OPTIONS = {
    "--http": "api.connections:Connection",
    "--loop": "api.accepting:PatientLoop",
    "--limit-concurrency": "2000",
}


class EmbeddedService:
    """Starts on entering, stops on leaving. Enter it from the main thread.

    Args:
        settings: As for a single process; `redis_url` is replaced by the private server's,
            port 0 by a free one.

    Attributes:
        base_url: Where this host reaches the API.
        api_key: A key for it; also in `key_file`, as the address is in `url_file` beside it while the service runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"port": _bindable_port(settings.host, settings.port)})
        self._stack = ExitStack()
        self._stopping = threading.Event()
        self.base_url = url_of(settings.host, self._settings.port)
        self.key_file = settings.home / "api_key"
        self.url_file = settings.home / "url"
        self.log_folder = settings.home / "logs"
        self.api_key = ""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.push(self._stack)
            self._start()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait(self) -> None:
        """Return only by an exception: Ctrl-C, a signal, or the end of a part that is not replaced.

        Raises:
            ServiceStopped: Redis or the API has ended by itself.
        """
        while True:
            for name, process in (("redis", self._redis.process), ("api", self._api)):
                if process.poll() is not None:
                    raise ServiceStopped(f"The {name} process ended by itself; see {self._log(name)}.")
            time.sleep(0.5)

    def _start(self) -> None:
        self._settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_folder.mkdir(exist_ok=True)
        upgrade(self._settings.database_url)
        self.api_key = ensure_key(self._settings.database_url, self.key_file)
        self._redis = self._stack.enter_context(private_redis(self._log("redis")))
        settings = self._settings.model_copy(update={"redis_url": self._redis.url})
        self._environment = os.environ | as_environment(settings)
        self._api = self._start_part("api", self._api_command())
        self._stack.callback(end, self._api)
        self._start_worker()
        wait_until(lambda: _is_ready(self.base_url), self._api, log=self._log("api"))
        self.url_file.write_text(self.base_url + "\n", encoding="utf-8")
        self._stack.callback(self.url_file.unlink, missing_ok=True)

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._keep_worker, name="keep-worker", daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._stopping.set)

    def _keep_worker(self) -> None:
        """Run a worker, and another one whenever it has died, until the service stops."""
        while not self._stopping.is_set():
            worker = self._start_part("worker", ["worker"])
            while worker.poll() is None and not self._stopping.wait(0.2):
                pass
            if worker.poll() is not None:
                logger.error("the worker ended with exit code %d; see %s", worker.returncode, self._log("worker"))
                self._stopping.wait(RESTART_PAUSE_S)
            end(worker)

    def _api_command(self) -> list[str]:
        where = ["--host", self._settings.host, "--port", str(self._settings.port)]
        how = ["--no-server-header", "--no-access-log", "--timeout-graceful-shutdown", "2"]
        return ["uvicorn", "--factory", API_FACTORY, *where, *chain.from_iterable(API_OPTIONS.items()), *how]

    def _start_part(self, name: str, module: Sequence[str]) -> Process:
        # -P: a folder of the user's that is called `api` must not take the place of ours.
        command = [sys.executable, "-P", "-m", *module]
        return start(command, log=self._log(name), environment=self._environment)

    def _log(self, name: str) -> Path:
        return self.log_folder / f"{name}.log"


def url_of(host: str, port: int) -> str:
    """Where this host reaches a server that listens at `host`; one that listens everywhere, by loopback's own name."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound here
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _is_ready(base_url: str) -> bool:
    try:
        return httpx.get(f"{base_url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def ensure_key(database_url: str, path: Path) -> str:
    """The key in the file, or a new one if the database does not know it. Only the owner may read the file."""
    database = create_database(database_url)
    try:
        with database.transaction() as session:
            kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            known = keys.authenticate(session, kept)
            if known:
                known.scopes = list(keys.Scope)  # an earlier version's had fewer
                return kept
            key, plaintext = keys.create_key(session, TENANT, "embedded", list(keys.Scope))
            audit.record(session, Actor(tenant=TENANT), "key.make", key.id, {"name": key.name, "scopes": key.scopes})
            path.unlink(missing_ok=True)
            with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(plaintext + "\n")
            return plaintext
    finally:
        database.close()


def _bindable_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        ServiceStopped: Somebody listens there; their answers could be taken for our API's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceStopped(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
        return int(probe.getsockname()[1])


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables from which a child reads the same settings."""
    return {f"SENTINEL_{name.upper()}": _as_text(getattr(settings, name)) for name in Settings.model_fields}


def _as_text(value: object) -> str:
    """As a variable says it; an empty one counts as unset."""
    if isinstance(value, list):
        return (os.pathsep if any(isinstance(each, Path) for each in value) else ",").join(map(str, value))
    return "" if value is None else str(value)


def exit_on_signals() -> None:
    """Let SIGTERM and a closed terminal leave like Ctrl-C does: through every `with`."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.embedded", description="Run the whole service on this host."
    )
    parser.add_argument("--port", type=int, help="0 takes a free one")
    options = parser.parse_args()
    settings = Settings() if options.port is None else Settings(port=options.port)
    logs.configure(settings.log_format, level=logging.WARNING)
    exit_on_signals()
    try:
        with EmbeddedService(settings) as service:
            print(f"Sentinel listens on {service.base_url} (interface: {service.base_url}/openapi.json)")
            print(
                f"The API key is in {service.key_file}; logs are in {service.log_folder}. Ctrl-C stops everything.",
                flush=True,
            )
            service.wait()
    except ServiceStopped as stopped:
        sys.exit(f"{stopped.message} {stopped.instance_next_step}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
