"""Which job a slot may claim, and what a job is told that waits."""

import pytest
from sqlalchemy import update

from api.store import jobs, leases
from api.store.database import db_now
from api.store.models import Job, SlotReport, Worker
from api.store.placement import (
    Demand,
    Offer,
    Placement,
    advertise,
    forget_silent,
    living_workers,
    withdraw,
    work_waits,
)
from sentinel.events import NeedsEstimated

CPU = Offer(("auto", "cpu"), 1000)
GPU = Offer(("auto", "cuda"), 4000)


def slot(offer, *, total=None, busy=False):
    return SlotReport(
        device="d",
        devices=list(offer.devices),
        total_bytes=total or offer.memory_bytes,
        free_bytes=offer.memory_bytes,
        busy=busy,
    )


@pytest.fixture
def submit(database):
    def accept(demand=Demand(), **terms):  # noqa: B008 - a value
        with database.transaction() as session:
            accepted = jobs.accept_job(
                session, tenant="t", spec={}, max_attempts=3, demand=demand, terms=jobs.Terms(**terms)
            )
            return accepted.job.id

    return accept


def claim(database, offer):
    with database.transaction() as session:
        return leases.claim_next(session, worker="w", lease_s=60, offer=offer)


def reason(database, job_id):
    with database.reading() as session:
        return Placement(session, silent_s=60).reason(session.get(Job, job_id))


def test_the_best_job_that_fits_is_claimed(database, submit):
    large = submit(Demand("auto", 2000), priority=5)
    submit(Demand("cuda", 1), priority=9)
    fitting = submit(Demand("auto", 1000))
    assert claim(database, CPU).job_id == fitting
    assert claim(database, CPU) is None
    with database.reading() as session:
        assert not work_waits(session, CPU)
        assert work_waits(session, GPU)
    assert [claim(database, GPU).needs_bytes for _ in range(2)] == [1, 2000]
    assert large


def test_a_job_of_unknown_needs_may_try_and_is_known_from_then_on(database, submit):
    job_id = submit()
    tried = claim(database, CPU)
    assert tried.job_id == job_id
    with database.transaction() as session:
        leases.record_events(session, tried, [NeedsEstimated(parameters=7, memory_bytes=3000)])
        leases.release(session, tried, "does not fit here")
    assert claim(database, CPU) is None
    again = claim(database, GPU)
    assert (again.job_id, again.attempt, again.needs_bytes) == (job_id, 1, 3000)


def test_a_retry_asks_for_what_its_parent_did(database, submit):
    job_id = submit(Demand("cuda", 3000))
    with database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=0)
        again = jobs.retry_job(session, "t", job_id, from_start=True, max_attempts=3).job
        assert (again.device, again.needs_bytes) == ("cuda", 3000)


def test_a_queued_job_says_why_it_waits(database, submit):
    job_id = submit(Demand("auto", 3000))
    on_gpu = submit(Demand("cuda", 1))
    assert reason(database, job_id) == "No worker is alive."
    for slots, why in (
        ([slot(CPU)], "It needs about 0.0 GB of memory; the largest device of a living worker has 0.0 GB."),
        ([slot(CPU, total=9000)], "It needs about 0.0 GB of memory; a free slot has 0.0 GB now."),
        ([slot(CPU), slot(GPU, busy=True)], "Every slot that could run it is busy."),
        ([slot(CPU), slot(GPU)], None),
    ):
        with database.transaction() as session:
            advertise(session, "w1", slots)
        assert reason(database, job_id) == why
    with database.transaction() as session:
        advertise(session, "w1", [slot(CPU)])
    assert reason(database, on_gpu) == "No living worker has the device 'cuda'."


def test_a_job_for_later_says_when_and_a_running_one_nothing(database, submit):
    job_id = submit()
    claim(database, CPU)
    assert reason(database, job_id) is None
    later = submit()
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == later).values(not_before=db_now(3600)))
    assert reason(database, later).startswith("It may start from 20")


def test_workers_count_while_they_are_heard_of(database):
    with database.transaction() as session:
        for name in ("w1", "w2", "w3"):
            advertise(session, name, [slot(CPU)])
            advertise(session, name, [slot(GPU)])
        withdraw(session, "w1")
        session.execute(update(Worker).where(Worker.id == "w2").values(seen_at=db_now(-90)))
    with database.transaction() as session:
        assert [worker.id for worker in living_workers(session, 60)] == ["w3"]
        forget_silent(session, 120)
        assert session.get(Worker, "w2") is not None
        forget_silent(session, 60)
    with database.reading() as session:
        (left,) = living_workers(session, 1e9)
        assert (left.id, left.slots) == ("w3", [slot(GPU)])
