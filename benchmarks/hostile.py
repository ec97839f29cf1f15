"""How much slower a normal request is while a flood of hostile ones runs: the ratio of the 99th percentiles.

The aim is that it at most doubles while one client sends `--rate` hostile requests a second, each on a connection of
its own and as costly to the service as we know how to make one. The API has the last processor core to itself, with the
options of the embedded service. The flood and the reader of a job share the first, and the reader goes first there:
what a sender on the service's own core takes from it by the mere sending, no service can give back. Where there is one
core only, or none can be chosen, all share, and the title of the table says so. Figures mean something on an otherwise
idle machine only: whoever else runs on the service's core lowers the rate that it bears.

A client that sends again as soon as it is refused takes all of the service's core, so that others wait for its
requests whatever those cost. What that does to the reader is shown as `flat out`, and there is no aim for it: whoever
can be sent that much needs a limit for each key (`SENTINEL_RATE_LIMIT`) and address, where requests come in.

The reader's turns alternate, without a flood, with one, and without, so that whatever else the machine does falls on
both.
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
from contextlib import ExitStack, contextmanager
from itertools import chain
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.store.database import create_database, upgrade
from api.store.keys import create_key
from worker.embedded import API_FACTORY, API_OPTIONS, as_environment
from worker.processes import end, start, wait_until

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SENDERS, SERVICE = CORES[:1], CORES[-1:]
LOWEST_PRIORITY = 19
SPEC = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}}
SILENT, SILENCE_S = 500, 1  # connections that are opened at once, and again after so long
DEAR_VALUES = ",".join([f"1{'_' * 31}"] * 490)  # what takes a parser of YAML the longest, for each value
LAUGHS = "a: &a [lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def request(port: int, method: str, path: str, headers: Sequence[str] = (), body: bytes = b"") -> bytes:
    """A request as it goes over the wire; the connection is closed after the answer."""
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *headers]
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*head, *length, "", ""]).encode() + body


def floods(port: int, key: str) -> dict[str, bytes]:
    """What is sent again and again, by name; nothing stands for connections that say nothing."""
    bearer = f"Authorization: Bearer {key}"
    yaml, plain = "Content-Type: application/yaml", "Content-Type: application/json"
    crumbs = b"1\r\n \r\n" * 200_000
    chunks = b"".join(b"10000\r\n%b\r\n" % (b" " * 0x10000) for _ in range(20))
    unknown = json.dumps({f"field{number}": 1 for number in range(490)})
    return {
        "no key": request(port, "GET", "/v1/jobs"),
        "many headers": request(port, "GET", "/v1/jobs", [f"X-{number}: {'x' * 100}" for number in range(140)]),
        "foreign host": request(port, "GET", "/v1/jobs").replace(b"127.0.0.1", b"evil.example"),
        "long body, declared": request(port, "POST", "/v1/jobs", [bearer, plain, "Content-Length: 99999999"]),
        "long body, chunked": request(port, "POST", "/v1/jobs", [bearer, plain, "Transfer-Encoding: chunked"]) + chunks,
        "body in crumbs": request(port, "POST", "/v1/jobs", [plain, "Transfer-Encoding: chunked"]) + crumbs,
        "unknown fields": request(port, "POST", "/v1/jobs", [bearer, plain], unknown.encode()),
        "YAML of many values": request(port, "POST", "/v1/jobs", [bearer, yaml], f"[{DEAR_VALUES}]".encode()),
        "number of many parts": request(port, "POST", "/v1/jobs", [bearer, yaml], b"a: 1" + b":1" * 30_000),
        "aliases of YAML": request(port, "POST", "/v1/jobs", [bearer, yaml], LAUGHS.encode()),
        "deep YAML": request(port, "POST", "/v1/jobs", [bearer, yaml], b"[" * 900_000),
        "wide JSON": request(port, "POST", "/v1/jobs", [bearer, plain], b"[" + b"0," * 400_000 + b"0]"),
        "many ranges": request(
            port, "GET", "/v1/artifacts/art_1/content",
            [bearer, "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(2000))],
        ),
        "silence": b"",
    }  # fmt: skip


def send(
    port: int, content: bytes, *, connections: int, rate: float | None, stop: Event, sent: Callable[[], None]
) -> None:
    """Flood until `stop`, with `rate` requests a second or as fast as they are answered; in a process of its own."""

    def again_and_again(number: int) -> None:
        due = time.monotonic() + (number / rate if rate else 0)
        while not stop.wait(max(0.0, due - time.monotonic())):
            if rate:
                due = max(
                    due + connections / rate, time.monotonic() - 1
                )  # of what is late, a second's worth is made up for
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    connection.sendall(content)
                    while connection.recv(65536):
                        pass
            except OSError:
                pass  # it hung up on us
            sent()

    os.nice(LOWEST_PRIORITY)
    if not content:
        _keep_silent(port, stop, sent)
        return
    threads = [threading.Thread(target=again_and_again, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _keep_silent(port: int, stop: Event, sent: Callable[[], None]) -> None:
    """Open connections, all at once, hold them, and begin anew."""
    while not stop.is_set():
        with ExitStack() as held:
            for _ in range(SILENT):
                held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                sent()
            stop.wait(SILENCE_S)


@contextmanager
def flooding(port: int, content: bytes, connections: int, rate: float | None) -> Iterator[Callable[[], float]]:
    """A flood under way; yields how many of its requests a second are over."""
    fork = get_context("fork")
    stop, count = fork.Event(), fork.Value("i", 0)

    def sent() -> None:
        with count.get_lock():
            count.value += 1

    how = {"connections": connections, "rate": rate, "stop": stop, "sent": sent}
    process = fork.Process(target=send, args=(port, content), kwargs=how)
    process.start()
    try:
        deadline = time.monotonic() + 60
        while count.value == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        yield lambda: count.value / (time.monotonic() - began)
    finally:
        stop.set()
        process.join()


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
    how = [*chain.from_iterable(API_OPTIONS.items()), "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "--factory", API_FACTORY, "--port", str(port), *how]
    process = start(command, log=folder / "api.log", environment=os.environ | as_environment(settings))
    if SERVICE:
        os.sched_setaffinity(process.pid, SERVICE)
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
    """Percentiles and their ratios, by kind of flood."""
    with serving(folder) as (port, key):
        if SENDERS:
            os.sched_setaffinity(0, SENDERS)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            job = client.post("/v1/jobs", json=SPEC).raise_for_status().json()["links"]["self"]
            times_ms(client, job, 50)
            kinds = {name: content for name, content in floods(port, key).items() if options.only in (None, name)}
            calm: dict[str, list[float]] = {name: [] for name in kinds}
            at_rate: dict[str, list[float]] = {name: [] for name in kinds}
            flat_out: dict[str, list[float]] = {name: [] for name in kinds}
            refused: dict[str, float] = {}
            for _ in range(options.rounds):
                for name, content in kinds.items():
                    calm[name] += times_ms(client, job, options.requests // 2)
                    with flooding(port, content, options.connections, options.rate):
                        at_rate[name] += times_ms(client, job, options.requests)
                    calm[name] += times_ms(client, job, options.requests // 2)
                    if content:
                        with flooding(port, content, options.connections, None) as per_s:
                            flat_out[name] += times_ms(client, job, options.requests // 4)
                            refused[name] = per_s()
    figures = {}
    for name in kinds:
        quiet, flooded = _p99(calm[name]), _p99(at_rate[name])
        figures[name] = {"p99_ms": quiet, "p99_flooded_ms": flooded, "ratio": flooded / quiet}
        if name in refused:
            figures[name] |= {"flat_out_per_s": refused[name], "flat_out_ratio": _p99(flat_out[name]) / quiet}
    return figures


def _p99(samples: Sequence[float]) -> float:
    return statistics.quantiles(samples, n=100)[98]


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="normal ones in a turn")
    parser.add_argument("--rounds", type=int, default=2, help="turns with each flood")
    parser.add_argument("--rate", type=float, default=50, help="hostile requests a second")
    parser.add_argument("--connections", type=int, default=4, help="over which a flood comes")
    parser.add_argument("--only", help="one kind of flood")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    where = "API on a core of its own" if SENDERS != SERVICE else "all on the same cores"
    table = Table(title=f"a normal request, 99th percentile; {options.rate:g} hostile ones a second; {where}")
    for heading in ("flood", "without, ms", "with, ms", "ratio", "flat out, a second", "ratio"):
        table.add_column(heading, justify="left" if heading == "flood" else "right")
    for name, of in figures.items():
        row = [f"{of['p99_ms']:.1f}", f"{of['p99_flooded_ms']:.1f}", f"{of['ratio']:.2f}"]
        if "flat_out_ratio" in of:
            row += [f"{of['flat_out_per_s']:.0f}", f"{of['flat_out_ratio']:.2f}"]
        table.add_row(name, *row)
    Console().print(table)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
