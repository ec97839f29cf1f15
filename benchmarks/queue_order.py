"""Claim: two workers run every job once, in the order of priority and age, and neither idles while one waits.

Half of the jobs are queued before the workers start, the other half come while they run; the experiment is the cheap
one of the fault harness, whose cluster this borrows. Run it from the root of the repository.

Order: a claim is an inversion if a job of higher rank (priority, then age) had been accepted before it began, and was
claimed only after it had been committed. Claims that overlap in time may be committed either way round, as one locks
its job while the other looks; those are counted apart. Idle: from a worker's first claim to its last, the time
between two of its jobs in which a job was waiting.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1]))

from api.store.database import create_database
from api.store.models import Attempt, Job, Outcome
from tests.faults import claim_log
from tests.faults.campaign import database_of
from tests.faults.cluster import WORKERS, running
from tests.faults.recovery import Bench

SLOTS = 1  # of each worker
LENGTH = {"cycles": 1, "steps": 12}  # a second
PRIORITIES = (-1, 0, 1, 2)
PAUSES_S = (0.0, 0.9)  # between jobs that come while others run: a little faster than they are done
SEED = 0
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of one job. Times of the queue are of the monotonic clock, those of work of the database's."""

    rank: tuple[int, float, str]  # the lowest goes first
    accepted: float
    claim: Interval
    created: float
    works: Sequence[Interval]
    worker: str
    succeeded_once: bool


def measure(kind: str, jobs: int) -> dict[str, Any]:
    """Every figure."""
    rng = random.Random(SEED)  # noqa: S311 - no secret
    folder = Path(tempfile.mkdtemp(prefix="queue-"))
    with database_of(kind, folder) as (url, server), running(folder / "home", server, url, {"slots": SLOTS}) as cluster:
        bench = Bench(cluster)
        try:
            workers = [cluster.parts[f"worker{number}"] for number in range(WORKERS)]
            for worker in workers:
                worker.kill(rest_s=float("inf"))
            bench.wait(lambda: bench.http.get("/readyz").is_success)
            queued = [_submit(bench, rng) for _ in range(jobs // 2)]
            for worker in workers:
                worker.kill(rest_s=0.0)
            _wait(bench, queued)
            arriving = []
            while len(queued) + len(arriving) < jobs:
                arriving.append(_submit(bench, rng))
                time.sleep(rng.uniform(*PAUSES_S))
            _wait(bench, arriving)
        finally:
            bench.close()
        runs = [_runs(url, dict(some), cluster.claim_log) for some in (queued, arriving)]
    return {"database": kind, **_figures(*runs)}


def _submit(bench: Bench, rng: random.Random) -> tuple[str, float]:
    """A job, and when it had been accepted."""
    answer = bench.submit(**LENGTH, priority=rng.choice(PRIORITIES)).raise_for_status()
    return answer.json()["id"], time.monotonic()


def _wait(bench: Bench, submitted: Iterable[tuple[str, float]]) -> None:
    for job_id, _ in submitted:
        bench.wait(lambda job_id=job_id: bench.state(job_id) == "succeeded")


def _runs(url: str, accepted: dict[str, float], log: Path) -> list[Run]:
    claims = {claim.job_id: (claim.began, claim.committed) for claim in claim_log.read(log)}
    database = create_database(url)
    try:
        with database.reading() as session:
            jobs = session.scalars(select(Job).where(Job.id.in_(accepted))).all()
            attempts = session.scalars(select(Attempt).where(Attempt.job_id.in_(accepted))).all()
    finally:
        database.close()
    by_job = {job.id: [attempt for attempt in attempts if attempt.job_id == job.id] for job in jobs}
    return [
        Run(
            rank=(-job.priority, job.created_at.timestamp(), job.id),
            accepted=accepted[job.id],
            claim=claims[job.id],
            created=job.created_at.timestamp(),
            works=[
                (attempt.started_at.timestamp(), attempt.finished_at.timestamp())
                for attempt in by_job[job.id]
                if attempt.finished_at is not None
            ],
            worker=by_job[job.id][0].worker,
            succeeded_once=[attempt.outcome for attempt in by_job[job.id]] == [Outcome.SUCCEEDED],
        )
        for job in jobs
    ]


def overtaken(runs: Sequence[Run]) -> tuple[int, int]:
    """Pairs of claims in the wrong order: certain inversions, and those that overlapped in time."""
    found: Counter[bool] = Counter()
    for later in runs:
        for earlier in runs:
            was_there = later.accepted < earlier.claim[0] < later.claim[0]
            if was_there and later.rank < earlier.rank:
                found[later.claim[0] > earlier.claim[1]] += 1
    return found[True], found[False]


def gaps(runs: Sequence[Run]) -> dict[str, list[Interval]]:
    """Between two jobs, of each worker."""
    workers = sorted({run.worker for run in runs})
    works = {name: sorted(work for run in runs for work in run.works if run.worker == name) for name in workers}
    return {name: [(before[1], after[0]) for before, after in pairwise(some)] for name, some in works.items()}


def idle_s(gap: Interval, runs: Sequence[Run]) -> float:
    """Seconds of a gap in which a job waited."""
    waits = ((run.created, run.works[0][0]) for run in runs)
    inside = sorted((max(gap[0], begin), min(gap[1], end)) for begin, end in waits if begin < gap[1] and end > gap[0])
    seconds, until = 0.0, gap[0]
    for begin, end in inside:
        seconds += max(0.0, end - max(begin, until))
        until = max(until, end)
    return seconds


def _figures(queued: Sequence[Run], arriving: Sequence[Run]) -> dict[str, Any]:
    (full, full_overlaps), (later, later_overlaps) = overtaken(queued), overtaken(arriving)
    runs = [*queued, *arriving]
    idle = {name: [idle_s(gap, runs) for gap in some] for name, some in gaps(runs).items()}
    each = [seconds for some in idle.values() for seconds in some]
    busy_s = sum(end - begin for run in runs for begin, end in run.works)
    return {
        "jobs": len(runs),
        "workers": len(idle),
        "ran_once": sum(run.succeeded_once for run in runs),
        "order_inversions": full + later,
        "order_inversions_full_queue": full,
        "order_inversions_arriving": later,
        "swaps_of_overlapping_claims": full_overlaps + later_overlaps,
        "idle_slot_seconds_while_waiting": sum(each),
        "idle_slot_seconds_while_waiting_of_worst": max(map(sum, idle.values())),
        "idle_share_while_waiting": sum(each) / (sum(each) + busy_s),
        "idle_between_jobs_mean_ms": 1000 * sum(each) / len(each),
        "idle_between_jobs_max_ms": 1000 * max(each),
    }


def main() -> None:
    """Print the figures; with --json also as one JSON object in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    options = parser.parse_args()
    figures = measure(options.database, options.jobs)
    for name, value in figures.items():
        print(f"{name:>42} {value if isinstance(value, str) else round(value, 3)}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
