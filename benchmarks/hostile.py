"""How much slower a normal request is while a flood of hostile ones runs: the ratio of the 99th percentiles.

The aim is that it at most doubles on a machine with a core for each: the flood, the service and the reader share them.

One process serves the API with the options of the embedded service; another sends the flood over some connections, each
of which sends again as soon as it is refused; this one reads a job, by turns without the flood and with it. Every kind
of flood has its own turns without, so that whatever else the machine does falls on both.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.store.database import create_database, upgrade
from api.store.keys import create_key
from worker.embedded import API_CONNECTIONS, API_FACTORY, MOST_CONNECTIONS, as_environment
from worker.processes import end, start, wait_until

SPEC = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}}
SILENT = 500
LAUGHS = "a: &a [lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def request(port: int, method: str, path: str, headers: Sequence[str] = (), body: bytes = b"") -> bytes:
    """A request as it goes over the wire; the connection is closed after the answer."""
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *headers]
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*head, *length, "", ""]).encode() + body


def floods(port: int, key: str) -> dict[str, bytes]:
    """What is sent again and again, by name; nothing is a connection that says nothing."""
    bearer = f"Authorization: Bearer {key}"
    yaml, plain = "Content-Type: application/yaml", "Content-Type: application/json"
    chunks = b"".join(b"10000\r\n%b\r\n" % (b" " * 0x10000) for _ in range(20))
    return {
        "no key": request(port, "GET", "/v1/jobs"),
        "many headers": request(port, "GET", "/v1/jobs", [f"X-{number}: {'x' * 100}" for number in range(140)]),
        "foreign host": request(port, "GET", "/v1/jobs").replace(b"127.0.0.1", b"evil.example"),
        "long body, declared": request(port, "POST", "/v1/jobs", [bearer, plain, "Content-Length: 99999999"]),
        "long body, chunked": request(port, "POST", "/v1/jobs", [bearer, plain, "Transfer-Encoding: chunked"]) + chunks,
        "aliases of YAML": request(port, "POST", "/v1/jobs", [bearer, yaml], LAUGHS.encode()),
        "deep YAML": request(port, "POST", "/v1/jobs", [bearer, yaml], b"[" * 900_000),
        "wide JSON": request(port, "POST", "/v1/jobs", [bearer, plain], b"[" + b"0," * 400_000 + b"0]"),
        "many ranges": request(
            port, "GET", "/v1/artifacts/art_1/content",
            [bearer, "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(2000))],
        ),
        "silence": b"",
    }  # fmt: skip


def send(port: int, content: bytes, connections: int, stop: Event, sent: Callable[[], None]) -> None:
    """Flood until `stop`; runs in a process of its own."""

    def again_and_again() -> None:
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    connection.sendall(content)
                    while connection.recv(65536):
                        pass
            except OSError:
                pass  # it hung up on us
            sent()

    if not content:
        held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(SILENT)]
        sent()
        stop.wait()
        for connection in held:
            connection.close()
        return
    threads = [threading.Thread(target=again_and_again) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def flooding(port: int, content: bytes, connections: int) -> Iterator[Callable[[], int]]:
    """A flood under way; yields how many of its requests are over."""
    fork = get_context("fork")
    stop, count = fork.Event(), fork.Value("i", 0)
    process = fork.Process(target=_send_counted, args=(port, content, connections, stop, count))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while count.value == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        yield lambda: count.value
    finally:
        stop.set()
        process.join()


def _send_counted(port: int, content: bytes, connections: int, stop: Event, count) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - a type of multiprocessing's that has no name
    def sent() -> None:
        with count.get_lock():
            count.value += 1

    send(port, content, connections, stop, sent)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, str]]:
    """A service of the API alone; yields its port and a key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = Settings(home=folder, port=port, redis_url=f"redis+socket://{folder}/none.sock")
    upgrade(settings.database_url)
    database = create_database(settings.database_url)
    with database.transaction() as session:
        _, key = create_key(session, "benchmark", "benchmark", ("read", "submit"))
    database.close()
    how = ["--http", API_CONNECTIONS, "--limit-concurrency", str(MOST_CONNECTIONS), "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "--factory", API_FACTORY, "--port", str(port), *how]
    process = start(command, log=folder / "api.log", environment=os.environ | as_environment(settings))
    try:
        wait_until(lambda: _lives(port), process, log=folder / "api.log")
        yield port, key
    finally:
        end(process)


def _lives(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5).is_success
    except httpx.TransportError:
        return False


def times_ms(client: httpx.Client, path: str, count: int) -> list[float]:
    """How long a normal request takes, one after the other."""
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        client.get(path).raise_for_status()
        samples.append((time.perf_counter() - began) * 1000)
    return samples


def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Both percentiles and their ratio, by kind of flood."""
    figures = {}
    with serving(folder) as (port, key):
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            job = client.post("/v1/jobs", json=SPEC).raise_for_status().json()["links"]["self"]
            times_ms(client, job, 50)
            for name, content in floods(port, key).items():
                calm: list[float] = []
                flooded: list[float] = []
                refused = 0
                for _ in range(options.rounds):
                    calm += times_ms(client, job, options.requests)
                    with flooding(port, content, options.connections) as done:
                        flooded += times_ms(client, job, options.requests)
                        refused += done()
                p99, p99_flooded = (statistics.quantiles(each, n=100)[98] for each in (calm, flooded))
                figures[name] = {
                    "p99_ms": p99, "p99_flooded_ms": p99_flooded, "ratio": p99_flooded / p99, "refused": refused,
                }  # fmt: skip
    return figures


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="normal ones in a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns with each flood, and as many without")
    parser.add_argument("--connections", type=int, default=4, help="over which a flood comes")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    table = Table(title="a normal request, 99th percentile")
    for heading in ("flood", "without, ms", "with, ms", "ratio", "requests of the flood"):
        table.add_column(heading, justify="left" if heading == "flood" else "right")
    for name, of in figures.items():
        row = (f"{of['p99_ms']:.1f}", f"{of['p99_flooded_ms']:.1f}", f"{of['ratio']:.2f}", f"{of['refused']:.0f}")
        table.add_row(name, *row)
    Console().print(table)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
