"""Claim: a download that is cut at random points goes on each time and ends verified; neither side holds it in memory.

Serves a file of random bytes from a process of the API on SQLite, through a relay on the loopback that counts what it
carries. At every other cut the relay drops the connection; at the rest the client's process is killed and run again.
Needs Linux, and three times the file's size on disk.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from api.settings import Settings
from api.store import jobs, leases
from api.store.database import create_database, upgrade
from api.store.keys import Scope, create_key
from api.store.storage import Storage, attempt_prefix
from worker.embedded import TENANT, as_environment
from worker.processes import Process, end, start, wait_until

MEGABYTE = 1024 * 1024
SPEC = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}}
CHUNK_BYTES = 65536
CLIENT = """
import sys
from pathlib import Path
from sentinel.client import SentinelClient
url, key, job_id, folder = sys.argv[1:]
with SentinelClient(url, key) as client:
    client.download_checkpoint(job_id, Path(folder))
print(Path("/proc/self/status").read_text())
"""


class Relay:
    """Carries connections to a port of the loopback until it has carried as many bytes back as a cut says.

    Args:
        server: The port.
        cuts: Bytes carried in all, ascending. The connection is dropped at the first, the client killed at the next …

    Attributes:
        port: Where it listens.
        carried: Bytes of the server's that it has carried.
        client: The process to kill.
        peak: The largest resident set of those that were killed.
    """

    def __init__(self, server: int, cuts: list[int]) -> None:
        self._server = server
        self._cuts = list(enumerate(cuts))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.carried = 0
        self.client: subprocess.Popen[str] | None = None
        self.peak = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                for carry in (self._requests, self._answers):
                    threading.Thread(target=carry, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                server.sendall(data)
        hang_up(server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while not self._is_cut() and (data := server.recv(CHUNK_BYTES)):
                client.sendall(data)
                self.carried += len(data)
            hang_up(client)

    def _is_cut(self) -> bool:
        """Whether a connection ends here; every other time, the client does."""
        if not (self._cuts and self.carried >= self._cuts[0][1]):
            return False
        number, _ = self._cuts.pop(0)
        if self.client is not None and number % 2 == 1:
            self.peak = max(self.peak, peak_bytes(Path(f"/proc/{self.client.pid}/status").read_text(encoding="utf-8")))
            self.client.kill()
        return True


def hang_up(end: socket.socket) -> None:
    """Close in both directions, also for whoever is reading just now."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def served(settings: Settings) -> Iterator[Process]:
    """A process of the API."""
    log = settings.home / "api.log"
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:app", "--port", str(settings.port)]
    process = start([*command, "--no-access-log"], log=log, environment=os.environ | as_environment(settings))
    try:
        wait_until(lambda: is_alive(settings.port), process, log=log)
        yield process
    finally:
        end(process)


def is_alive(port: int) -> bool:
    """Whether the API answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez").is_success
    except httpx.TransportError:
        return False


def publish(settings: Settings, key: str, size: int) -> tuple[str, str]:
    """A job that was cancelled behind a cycle, whose checkpoint is one file of random bytes; its id and the hash."""
    file = settings.home / "model.safetensors"
    with file.open("wb") as out:
        for offset in range(0, size, MEGABYTE):
            out.write(os.urandom(min(MEGABYTE, size - offset)))
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"http://127.0.0.1:{settings.port}/v1/jobs", json=SPEC, headers=headers).raise_for_status()
    database = create_database(settings.database_url)
    with database.transaction() as session:
        claim = leases.claim_next(session, worker="benchmark", lease_s=3600)
    if claim is None:
        raise RuntimeError("The job could not be claimed.")
    stored = Storage(settings.storage_uri).put_file(file, attempt_prefix(claim.job_id, claim.token))
    file.unlink()
    state = {
        "path": f"checkpoint/{file.name}",
        "sha256": stored.sha256,
        "bytes": stored.bytes,
        "storage_key": stored.key,
    }
    with database.transaction() as session:
        leases.record_checkpoint(session, claim, 1, [state])
        jobs.request_cancel(session, TENANT, claim.job_id, grace_s=0)
        leases.finish_cancel(session, claim)
    database.close()
    return str(answer.json()["id"]), stored.sha256


def fetch(relay: Relay, key: str, job_id: str, folder: Path) -> tuple[int, int]:
    """Run the client until it has everything; how often it was killed, and the most memory that it took."""
    kills = 0
    command = [sys.executable, "-c", CLIENT, f"http://127.0.0.1:{relay.port}", key, job_id, str(folder)]
    while True:
        relay.client = client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        status, _ = client.communicate()
        if client.returncode == 0:
            return kills, max(relay.peak, peak_bytes(status))
        if client.returncode != -signal.SIGKILL:
            raise RuntimeError(f"The client ended with exit code {client.returncode}.")
        kills += 1


def peak_bytes(status: str) -> int:
    """The largest resident set that a process has had, from its /proc/…/status."""
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(size: int, cuts: int, home: Path) -> dict[str, Any]:
    """Every figure."""
    # The relay has a port of its own, by which clients call the service.
    settings = Settings(
        home=home, port=free_port(), redis_url=f"redis+socket://{home}/none.sock", allowed_hosts=["127.0.0.1"]
    )
    upgrade(settings.database_url)
    database = create_database(settings.database_url)
    with database.transaction() as session:
        _, key = create_key(session, TENANT, "benchmark", list(Scope))
    database.close()
    with ExitStack() as stack:
        api = stack.enter_context(served(settings))
        job_id, sha256 = publish(settings, key, size)
        relay = Relay(settings.port, sorted(random.sample(range(1, size), cuts)))
        stack.callback(relay.close)
        began = time.perf_counter()
        kills, client_peak = fetch(relay, key, job_id, home / "fetched")
        seconds = time.perf_counter() - began
        api_peak = peak_bytes(Path(f"/proc/{api.pid}/status").read_text(encoding="utf-8"))
    with (home / "fetched" / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "size_bytes": size,
        "cuts": cuts,
        "kills": kills,
        "verified": digest == sha256,
        "fetched_bytes": relay.carried,
        "fetched_over_size": relay.carried / size,
        "seconds": seconds,
        "api_peak_bytes": api_peak,
        "client_peak_bytes": client_peak,
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="of the file, in MiB")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as home:
        figures = measure(options.size * MEGABYTE, options.cuts, Path(home).resolve())
    for name, value in figures.items():
        print(f"{name:>18} {value:>16,.4g}" if isinstance(value, float) else f"{name:>18} {value:>16,}")
    if options.json:
        print(json.dumps(figures))
    if not figures["verified"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
