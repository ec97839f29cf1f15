"""Sweeps in the store: accepted as one, no more jobs at a time than may run, ended when the budget is used up."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from api.store import jobs, leases, reconciliation, sweeps
from api.store.database import db_now
from api.store.errors import DeadlineInvalid, IdempotencyMismatch, SweepNotFound
from api.store.models import Attempt, IdempotencyKey, Job, Sweep
from api.store.placement import Placement, work_waits
from api.store.states import LEASED, State
from api.store.statistics import read_statistics
from sentinel.events import Progressed

MANIFEST = [{"path": "state.json", "sha256": "0" * 64, "bytes": 3, "storage_key": "jobs/j/attempts/1/0"}]


def accept(database, number, **changes):
    points = [jobs.NewJob({"seed": seed}, "n", point={"seed": seed}) for seed in range(number)]
    values = {"tenant": "ann", "document": {"grid": {}}, "points": points, "max_attempts": 3} | changes
    with database.transaction() as session:
        return sweeps.accept_sweep(session, **values)


def claim(database, worker="w"):
    with database.transaction() as session:
        return leases.claim_next(session, worker=worker, lease_s=60)


def write(database, function, *arguments, **options):
    with database.transaction() as session:
        return function(session, *arguments, **options)


def jobs_of(database, sweep_id):
    with database.reading() as session:
        return sorted(jobs.list_jobs(session, "ann", jobs.JobFilter(sweep_id=sweep_id), limit=100), key=lambda j: j.id)


def standing(database, sweep_id):
    with database.reading() as session:
        return sweeps.standings(session, [sweep_id])[sweep_id]


def version(database, sweep_id):
    with database.reading() as session:
        return sweeps.versions(session, [sweep_id])[sweep_id]


def test_a_sweep_is_stored_with_its_jobs_which_run_in_the_grid_s_order(database):
    sweep, replayed = accept(database, 40, name="s", terms=jobs.Terms(priority=2), request_id="r")
    stored = jobs_of(database, sweep.id)
    assert not replayed
    assert [(job.point, job.spec, job.priority, job.request_id) for job in stored] == [
        ({"seed": seed}, {"seed": seed}, 2, "r") for seed in range(40)
    ]
    assert sorted(stored, key=lambda job: (job.created_at, job.id)) == stored
    assert [claim(database).job_id for _ in range(3)] == [job.id for job in stored[:3]]
    with database.reading() as session:
        assert sweeps.get_sweep(session, "ann", sweep.id).name == "s"
        with pytest.raises(SweepNotFound):
            sweeps.get_sweep(session, "bob", sweep.id)


def test_a_sweep_without_its_last_job_is_no_sweep(database):
    good, broken = jobs.NewJob({}), jobs.NewJob(None)
    with pytest.raises(IntegrityError):
        accept(database, 0, points=[good, good, broken], idempotency=("k", "h"))
    with database.reading() as session:
        assert [session.scalar(select(func.count()).select_from(t)) for t in (Sweep, Job, IdempotencyKey)] == [0, 0, 0]
        passed = session.scalar(select(db_now(-1)))
    with pytest.raises(DeadlineInvalid):
        accept(database, 2, terms=jobs.Terms(deadline=passed))


def test_racing_requests_make_one_sweep(database):
    with ThreadPoolExecutor(4) as pool:
        accepted = list(pool.map(lambda _: accept(database, 3, idempotency=("k", "h")), range(4)))
    (sweep_id,) = {each.sweep.id for each in accepted}
    assert sorted(each.replayed for each in accepted) == [False, True, True, True]
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3
        assert [sweep.id for sweep in sweeps.list_sweeps(session, "ann", limit=9)] == [sweep_id]
    with pytest.raises(IdempotencyMismatch):
        accept(database, 3, idempotency=("k", "other"))


def test_no_more_jobs_run_at_the_same_time_than_may(database):
    sweep = accept(database, 4, max_parallel=2).sweep
    other = write(database, jobs.accept_job, tenant="ann", spec={}, max_attempts=3).job
    first, second, third = claim(database), claim(database), claim(database)
    assert [first.job_id, second.job_id] == [job.id for job in jobs_of(database, sweep.id)[:2]]
    assert third.job_id == other.id
    assert claim(database) is None
    with database.transaction() as session:
        session.execute(update(Job).where(Job.state == State.QUEUED).values(not_before=db_now(-90)))
        assert not work_waits(session, leases.ANYTHING)
        assert read_statistics(session).oldest_due_s == 0, "nobody has to be alarmed"
    assert write(database, reconciliation.reconcile, limit=9).waiting == []
    write(database, jobs.request_pause, "ann", first.job_id, grace_s=60)
    assert claim(database) is None, "who is about to pause still runs"
    write(database, leases.release, first, "paused")
    assert claim(database).job_id == jobs_of(database, sweep.id)[2].id
    assert claim(database) is None


def test_a_job_says_that_its_sweep_lets_it_wait(database):
    sweep = accept(database, 2, max_parallel=1).sweep
    waiting = jobs_of(database, sweep.id)[1].id

    def reason():
        with database.reading() as session:
            return Placement(session, silent_s=60).reason(session.get(Job, waiting))

    assert reason() == "No worker is alive."
    running = claim(database)
    assert reason() == "Its sweep runs no more than 1 job(s) at the same time."
    write(database, leases.succeed, running, {}, [])
    assert reason() == "No worker is alive."


def test_workers_that_claim_at_once_keep_to_the_limits(database):
    """Every worker holds its job until all of them have asked, so each sweep fills up and stays full."""
    sizes = {accept(database, 8, max_parallel=limit).sweep.id: limit for limit in (1, 3)}
    free = accept(database, 4).sweep.id
    start = Barrier(8)

    def take_all(number):
        start.wait()
        return [taken.job_id for taken in iter(lambda: claim(database, f"w{number}"), None)]

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for share in pool.map(take_all, range(8)) for job_id in share]
    while found := claim(database):  # a claim passes over what another is just looking at
        taken.append(found.job_id)
    assert len(set(taken)) == len(taken) == 4 + sum(sizes.values())
    with database.reading() as session:
        running = select(Job.sweep_id, func.count()).where(Job.state.in_(LEASED)).group_by(Job.sweep_id)
        assert dict(session.execute(running).all()) == sizes | {free: 4}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_claim_asks_again_once_it_has_the_last_place(database):
    """Both transactions see a free place; the second must not use it, neither before the first commits nor after."""
    sweep = accept(database, 3, max_parallel=1).sweep
    elsewhere = accept(database, 1).sweep
    with database.transaction() as first, database.transaction() as second:
        taken = leases.claim_next(first, worker="a", lease_s=60)
        passed_on = leases.claim_next(second, worker="b", lease_s=60)
    assert [taken.job_id, passed_on.job_id] == [jobs_of(database, each.id)[0].id for each in (sweep, elsewhere)]
    assert claim(database) is None


def test_how_a_sweep_stands(database):
    sweep = accept(database, 4).sweep
    before = version(database, sweep.id)
    assert standing(database, sweep.id).counts == {State.QUEUED: 4}
    done, half = claim(database), claim(database)
    # PostgreSQL looks into no document with a NUL in it, and a model may write one.
    write(database, leases.succeed, done, {"pruned": {"loss": 1.5}, "samples": "a\0b"}, [])
    write(database, leases.record_events, half, [Progressed(fraction=0.5)])
    now = standing(database, sweep.id)
    assert now.counts == {State.SUCCEEDED: 1, State.RUNNING: 1, State.QUEUED: 2}
    assert now.progress == 1.5 / 4
    assert version(database, sweep.id) > before
    with database.reading() as session:
        rows = sweeps.list_points(session, sweep.id)
    assert [(row.state, row.point["seed"], row.pruned) for row in rows] == [
        (State.SUCCEEDED, 0, {"loss": 1.5}),
        (State.RUNNING, 1, None),
        (State.QUEUED, 2, None),
        (State.QUEUED, 3, None),
    ]


def test_slots_are_paid_for_while_they_are_held(database):
    sweep = accept(database, 2).sweep
    accept(database, 1)
    first = claim(database)
    write(database, leases.fail, first, {"code": "c", "message": "m"}, retry=True)
    claim(database)
    with database.transaction() as session:
        session.execute(update(Attempt).values(started_at=db_now(-100)))
        session.execute(update(Attempt).where(Attempt.outcome.is_not(None)).values(finished_at=db_now(-70)))
    used = standing(database, sweep.id).used_slot_s
    assert isinstance(used, float)
    assert used == pytest.approx(30 + 100, abs=10)


def test_a_retry_takes_the_place_of_its_parent(database):
    sweep = accept(database, 2).sweep
    failed = claim(database)
    write(database, leases.fail, failed, {"code": "c", "message": "m"}, retry=False)
    before = version(database, sweep.id)
    retry = write(database, jobs.retry_job, "ann", failed.job_id, from_start=True, max_attempts=3).job
    assert (retry.sweep_id, retry.point) == (sweep.id, {"seed": 0})
    assert standing(database, sweep.id).counts == {State.QUEUED: 2}
    assert version(database, sweep.id) > before
    with database.reading() as session:
        assert {row.job_id for row in sweeps.list_points(session, sweep.id)} == {
            retry.id,
            jobs_of(database, sweep.id)[1].id,
        }


def test_of_several_retries_of_a_point_the_newest_counts(database):
    """Two of the same job, and one more of the first of all behind a retry of a retry."""
    sweep, other = accept(database, 3).sweep, accept(database, 3).sweep
    write(database, sweeps.cancel_sweep, "ann", sweep.id, grace_s=0)

    def retry(job_id):
        return write(database, jobs.retry_job, "ann", job_id, from_start=True, max_attempts=3).job.id

    first, second, third = (job.id for job in jobs_of(database, sweep.id))
    retry(first)
    newest = retry(first)
    again = retry(second)
    write(database, jobs.request_cancel, "ann", again, grace_s=0)
    retry(again)
    latest = retry(second)
    assert standing(database, sweep.id).counts == {State.CANCELLED: 1, State.QUEUED: 2}
    with database.reading() as session:
        rows = sweeps.list_points(session, sweep.id)
        assert {row.point["seed"]: row.job_id for row in rows} == {0: newest, 1: latest, 2: third}
        assert len(rows) == 3
        both = sweeps.standings(session, [sweep.id, other.id])
    assert both[other.id].counts == {State.QUEUED: 3}


def test_a_cancel_asks_every_job_that_has_not_ended(database):
    sweep = accept(database, 4).sweep
    other = accept(database, 1).sweep
    write(database, leases.succeed, claim(database), {}, [])
    running = claim(database)
    paused = jobs_of(database, sweep.id)[2].id
    write(database, jobs.request_pause, "ann", paused, grace_s=0)
    assert write(database, sweeps.cancel_sweep, "ann", sweep.id, grace_s=5) == (3, 3)
    states = [job.state for job in jobs_of(database, sweep.id)]
    assert states == [State.SUCCEEDED, State.CANCELLING, State.CANCELLED, State.CANCELLED]
    assert write(database, leases.heartbeat, running, 60) == (leases.Command.CANCEL, 5)
    for grace_s, changed in ((5, 0), (4, 1)):
        assert write(database, sweeps.cancel_sweep, "ann", sweep.id, grace_s=grace_s) == (1, changed)
    write(database, leases.finish_cancel, running)
    assert write(database, sweeps.cancel_sweep, "ann", sweep.id, grace_s=0) == (0, 0)
    assert [job.state for job in jobs_of(database, other.id)] == [State.QUEUED]
    with pytest.raises(SweepNotFound):
        write(database, sweeps.cancel_sweep, "bob", sweep.id, grace_s=5)


def test_what_waits_when_the_budget_is_used_up_is_cancelled_and_says_so(database):
    sweep = accept(database, 4, slot_seconds=60).sweep
    free = accept(database, 1).sweep
    running, kept = claim(database), claim(database)
    write(database, leases.record_checkpoint, kept, 1, MANIFEST)
    write(database, jobs.request_pause, "ann", kept.job_id, grace_s=0)
    write(database, leases.release, kept, "paused")
    assert len(write(database, reconciliation.reconcile, limit=9).waiting) == 3
    with database.transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == running.job_id).values(started_at=db_now(-61)))
    assert write(database, reconciliation.reconcile, limit=9).waiting == [jobs_of(database, free.id)[0].id]
    first, *others = jobs_of(database, sweep.id)
    assert first.state == State.RUNNING, "what runs may finish"
    assert {job.state for job in others} == {State.CANCELLED}
    assert {job.error["code"] for job in others} == {"sweep_budget_spent"}
    assert "of the 60 slot-seconds" in others[0].error["message"]
    with database.reading() as session:
        assert jobs.list_events(session, others[0].id, limit=99)[-1].data["reason"] == others[0].error["message"]
    write(database, leases.succeed, running, {}, [])
    assert standing(database, sweep.id).counts == {State.SUCCEEDED: 1, State.CANCELLED: 3}
