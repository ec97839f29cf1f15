"""What a key may have at once and in a month, and what its jobs have taken."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from api.store import jobs, keys, leases, usage
from api.store.database import db_now
from api.store.errors import QuotaExceeded, StoredBytesExceeded
from api.store.files import NewArtifact
from api.store.models import Artifact, ArtifactKind, Attempt, Job
from api.store.placement import ANYTHING, Placement, work_waits
from api.store.reconciliation import reconcile
from api.store.statistics import read_statistics


@pytest.fixture
def key_of(database):
    def make(**limits):
        with database.transaction() as session:
            return keys.create_key(session, "ann", "k", ["submit"], **limits)[0].id

    return make


@pytest.fixture
def submit(database):
    def accept(key_id=None, **options):
        with database.transaction() as session:
            return jobs.accept_job(session, tenant="ann", spec={}, max_attempts=3, key_id=key_id, **options).job.id

    return accept


def claim(database):
    with database.transaction() as session:
        return leases.claim_next(session, worker="w", lease_s=60)


def finish(database, claimed, **artifacts):
    files = [
        NewArtifact(
            kind=ArtifactKind.PLOT,
            path=path,
            sha256="0",
            bytes=size,
            media_type="a/b",
            storage_key=claimed.job_id + path,
        )
        for path, size in artifacts.items()
    ]
    with database.transaction() as session:
        leases.succeed(session, claimed, {}, files)


def test_a_full_queue_refuses_and_a_paused_job_is_in_it(database, key_of, submit):
    key_id = key_of(max_queued_jobs=2)
    paused = submit(key_id)
    with database.transaction() as session:
        jobs.request_pause(session, "ann", paused, grace_s=0)
    submit(key_id)
    with pytest.raises(QuotaExceeded) as refused:
        submit(key_id)
    assert (refused.value.quota, refused.value.limit, refused.value.used) == ("max_queued_jobs", 2, 2)
    assert refused.value.retry_after_s > 0
    submit(key_of())  # another key's queue is another one
    claim(database)
    submit(key_id)


def test_a_request_that_is_sent_again_gets_its_job_though_the_queue_is_full(submit, key_of):
    key_id = key_of(max_queued_jobs=1)
    job_id = submit(key_id, idempotency=("k", "h"))
    assert submit(key_id, idempotency=("k", "h")) == job_id


def test_a_retry_counts_for_the_key_that_asks(database, key_of, submit):
    job_id, empty = submit(key_of()), key_of(max_queued_jobs=0)
    with database.transaction() as session:
        jobs.request_cancel(session, "ann", job_id, grace_s=0)
    with pytest.raises(QuotaExceeded), database.transaction() as session:
        jobs.retry_job(session, "ann", job_id, from_start=True, max_attempts=1, key_id=empty)


def test_submits_that_race_do_not_overfill_the_queue(submit, key_of):
    key_id = key_of(max_queued_jobs=3)

    def race(_):
        try:
            return submit(key_id)
        except QuotaExceeded:
            return None

    with ThreadPoolExecutor(6) as pool:
        accepted = list(pool.map(race, range(6)))
    assert sum(job_id is not None for job_id in accepted) == 3


def test_no_more_jobs_of_a_key_run_than_may_and_others_overtake(database, key_of, submit):
    key_id = key_of(max_running_jobs=1)
    first, held, other = submit(key_id), submit(key_id), submit()
    running = claim(database)
    assert running.job_id == first
    with database.reading() as session:
        placement = Placement(session, silent_s=60)
        assert placement.reason(session.get(Job, held)) == "Its key may have 1 job(s) running at once, and has."
        assert placement.reason(session.get(Job, other)) == "No worker is alive."
    assert claim(database).job_id == other
    assert claim(database) is None
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == held).values(not_before=db_now(-90)))
        assert not work_waits(session, ANYTHING)
        assert reconcile(session, limit=9).waiting == []
        assert read_statistics(session).oldest_due_s == 0  # nobody has to be alarmed
    finish(database, running)
    assert claim(database).job_id == held


def test_workers_that_race_do_not_run_more_than_may_and_leave_no_slot_empty(database, key_of, submit):
    limited = [key_of(max_running_jobs=limit) for limit in (1, 2)]
    for _ in range(4):
        for key_id in limited:
            submit(key_id)
    free = {submit() for _ in range(3)}
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(database), range(8)))
    ids = {claimed.job_id for claimed in claimed if claimed is not None}
    with database.reading() as session:
        owners = [session.get(Job, job_id).key_id for job_id in ids]
    assert len(ids) == 6
    assert free <= ids
    assert [owners.count(key_id) for key_id in limited] == [1, 2]


def spent(database, claimed, **times):
    with database.transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == claimed.job_id).values(**times))


def test_time_in_slots_is_counted_within_a_period(database, key_of, submit):
    key_id = key_of()
    submit(key_id)
    submit(key_id)
    ended, running = claim(database), claim(database)
    finish(database, ended)
    new_year = datetime(2001, 1, 1, tzinfo=UTC)
    spent(database, ended, started_at=new_year - timedelta(seconds=60), finished_at=new_year + timedelta(seconds=30))
    spent(database, running, started_at=db_now(-20))
    of, ever = (
        usage.of_key("ann", key_id),
        usage.Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)),
    )
    with database.reading() as session:
        assert usage.gpu_seconds(session, *of, period=usage.month_of(new_year))[key_id] == pytest.approx(30, abs=0.01)
        assert 110 <= usage.gpu_seconds(session, *of, period=ever)[key_id] < 140
        assert usage.gpu_seconds(session, *usage.of_key("bob", key_id), period=ever) == {}
        assert usage.gpu_seconds(session, *of, period=ever._replace(start=session.scalar(select(db_now(60))))) == {}


def test_time_that_is_used_up_comes_again_with_the_next_month(database, key_of, submit):
    key_id = key_of(max_gpu_seconds=60)
    submit(key_id)
    claimed = claim(database)
    submit(key_id)
    # At least a minute of them lies in this month, whenever it began or ends.
    spent(database, claimed, started_at=db_now(-60), finished_at=db_now(60))
    with pytest.raises(QuotaExceeded) as refused:
        submit(key_id)
    assert (refused.value.quota, refused.value.limit) == ("max_gpu_seconds", 60)
    assert 60 <= refused.value.used <= 120
    assert 0 < refused.value.retry_after_s <= 31 * 86_400


@pytest.mark.parametrize(
    ("time", "start", "end"),
    [
        ("2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("2028-02-01", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_month_begins_on_its_first_day(time, start, end):
    time, start, end = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (time, start, end))
    assert usage.month_of(time) == (start, end)


def test_files_that_are_kept_count_until_they_expire(database, key_of, submit):
    key_id = key_of(max_stored_bytes=100)
    submit(key_id)
    finish(database, claim(database), a=70, b=30)
    with pytest.raises(StoredBytesExceeded) as refused:
        submit(key_id)
    assert (refused.value.used, refused.value.retry_after_s) == (100, None)
    with database.transaction() as session:
        session.execute(update(Artifact).where(Artifact.path == "b").values(expired_at=db_now()))
    submit(key_id)
