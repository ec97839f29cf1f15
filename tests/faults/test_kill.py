"""`kill -9`, or a long freeze, in the middle of a job: it succeeds on a later attempt, resumed, published once."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest


def busy_child(processes: list[psutil.Process]) -> psutil.Process:
    """The runner that is on a job: its folder has metrics; the warm one's is empty."""
    return next(process for process in processes if (Path(process.cwd()) / "metrics.jsonl").exists())


def the_worker(processes: list[psutil.Process]) -> psutil.Process:
    """The Celery side."""
    return next(process for process in processes if process.cmdline()[-2:] == ["-m", "worker"])


@pytest.mark.parametrize(
    ("victim", "outcome"), [(busy_child, "failed"), (the_worker, "worker_lost")], ids=["child", "worker"]
)
def test_a_killed_job_resumes_from_its_last_cycle(
    service, client, tiny_spec, processes_of, wait_until_gone, victim, outcome
):
    home = service.key_file.parent
    job_id = client.submit(tiny_spec(cycles=3, steps=30)).id
    doomed = []
    events = []
    for event in client.watch(job_id):
        events.append(event)
        if event.type == "checkpoint" and not doomed:
            killed = victim(processes_of(home))
            doomed = [killed, *killed.children(recursive=True)]
            killed.kill()
    assert wait_until_gone(doomed) == []

    job = client.get(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    first, second = client.attempts(job_id)
    assert (first.outcome, second.outcome) == (outcome, "succeeded")
    assert second.token > first.token

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.data["to"] for event in events if event.type == "state"].count("succeeded") == 1
    resumed = [event for event in events if event.data.get("text", "").startswith("Resumed after cycle ")]
    assert [event.token for event in resumed] == [second.token]
    cycles = [event.data["cycle"] for event in events if event.type == "checkpoint"]
    assert cycles == [1, 2, 3]
    assert [record.cycle for record in job.result.cycles] == [1, 2, 3]
    assert [artifact.path for artifact in job.artifacts].count("result.json") == 1


def is_stopped(process: psutil.Process) -> bool:
    """Whether the last of its threads has: they are told by the one that took the signal, when it gets a core."""
    threads = process.threads()
    try:
        return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in threads)
    except psutil.NoSuchProcess:
        return False


def freeze(process: psutil.Process, database: Path) -> None:
    """Stop a process between two of its writes: in one, it would keep SQLite's lock, and nobody else could write."""
    while True:
        process.suspend()
        while not is_stopped(process):
            time.sleep(0.01)
        try:
            with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return
        except sqlite3.OperationalError:
            process.resume()


def test_a_worker_that_was_frozen_past_its_lease_writes_nothing_more(service, client, tiny_spec, processes_of):
    home = service.key_file.parent
    worker = the_worker(processes_of(home))
    job_id = client.submit(tiny_spec(cycles=2, steps=30)).id
    next(event for event in client.watch(job_id) if event.type == "checkpoint")
    freeze(worker, home / "sentinel.db")
    lost = next(event for event in client.watch(job_id) if event.data.get("to") == "queued" and event.data["from"])
    worker.resume()

    job = client.wait(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    first, second = client.attempts(job_id)
    assert (first.outcome, second.outcome) == ("worker_lost", "succeeded")
    assert {event.token for event in client.events(job_id, after=lost.seq)} == {second.token}
