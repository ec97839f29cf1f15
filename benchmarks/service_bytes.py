"""Bytes that leave the service: a large download beside a plain file server, one event to many subscribers."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import text

from api.settings import Settings
from api.store import leases
from api.store.database import Database
from api.store.files import NewArtifact
from api.store.models import ArtifactKind
from api.store.storage import Storage, attempt_prefix
from sentinel.events import MessageLogged

SPEC = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}}
LATER = {"not_before": "2100-01-01T00:00:00Z"}  # so that the worker leaves these jobs alone
FILE_BYTES = 256 * 1024 * 1024
DOWNLOADS = 5
SUBSCRIBERS = 200
EVENTS = 10


def download_ratio(client: httpx.Client, settings: Settings, database: Database, folder: Path) -> float:
    """Throughput of an artifact's download over that of Python's own file server, medians of interleaved runs."""
    served = folder / "served"
    served.mkdir()
    (served / "file").write_bytes(bytes(FILE_BYTES))
    content = _publish(client, settings, database, served / "file")
    with _file_server(served) as plain:
        times = [(_drain(client, content), _drain(plain, "/file")) for _ in range(DOWNLOADS)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return theirs / ours


def fan_out_ms(client: httpx.Client, database: Database) -> float:
    """From one event's commit until the last of many subscribers has it, the median of a few."""
    claim = _claim_new_job(client, database)
    arrived = [threading.Semaphore(0) for _ in range(SUBSCRIBERS)]
    threads = [threading.Thread(target=_subscribe, args=(client, claim.job_id, each)) for each in arrived]
    for thread in threads:
        thread.start()
    _wait_for(arrived)  # the event that made the job
    samples = []
    for number in range(EVENTS):
        with database.transaction() as session:
            leases.record_events(session, claim, [MessageLogged(text=f"event {number}")])
        began = time.perf_counter()
        _wait_for(arrived)
        samples.append((time.perf_counter() - began) * 1000)
    with database.transaction() as session:
        leases.succeed(session, claim, {}, [])
    for thread in threads:
        thread.join()
    return statistics.median(samples)


def _subscribe(client: httpx.Client, job_id: str, arrived: threading.Semaphore) -> None:
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as answer:
        for line in answer.iter_lines():
            # The claim's own event comes with the first one.
            if line == "event: message" or '"to":"running"' in line:
                arrived.release()


def _wait_for(arrived: list[threading.Semaphore]) -> None:
    for each in arrived:
        if not each.acquire(timeout=30):
            raise TimeoutError("An event did not reach a subscriber.")


def _publish(client: httpx.Client, settings: Settings, database: Database, file: Path) -> str:
    """A succeeded job with one large file; the path of its content."""
    claim = _claim_new_job(client, database)
    stored = Storage(settings.storage_uri).put_file(file, attempt_prefix(claim.job_id, claim.token))
    described = {"sha256": stored.sha256, "bytes": stored.bytes, "storage_key": stored.key}
    new = NewArtifact(kind=ArtifactKind.LOG, path="file", media_type="application/octet-stream", **described)
    with database.transaction() as session:
        leases.succeed(session, claim, {}, [new])
    content: str = client.get(f"/v1/jobs/{claim.job_id}").json()["artifacts"][0]["links"]["content"]
    return content


def _claim_new_job(client: httpx.Client, database: Database) -> leases.Claim:
    """A job that this process holds; made due and claimed in one transaction, so that no worker comes first."""
    job = client.post("/v1/jobs", json=SPEC, params=LATER).raise_for_status().json()
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET not_before = created_at WHERE id = :id"), {"id": job["id"]})
        claim = leases.claim_next(session, worker="benchmark", lease_s=3600)
    if claim is None or claim.job_id != job["id"]:
        raise RuntimeError("Another job was due.")
    return claim


@contextmanager
def _file_server(folder: Path) -> Iterator[httpx.Client]:
    """`python -m http.server` on a folder."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None  # noqa: S101 - opened as a pipe
        port = server.stdout.readline().split(" port ")[1].split()[0]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                yield client
        finally:
            server.terminate()


def _drain(client: httpx.Client, path: str) -> float:
    """Seconds that a download takes whose bytes are thrown away."""
    began = time.perf_counter()
    with client.stream("GET", path) as answer:
        size = sum(len(chunk) for chunk in answer.iter_raw(1024 * 1024))
    if size != FILE_BYTES:
        raise RuntimeError(f"{path} gave {size} bytes.")
    return time.perf_counter() - began
