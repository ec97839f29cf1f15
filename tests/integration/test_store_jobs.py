"""What the API may rely on: accept once, read one's own, page without gaps, cancel by the table."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from api.store import files, jobs, leases, sources
from api.store.errors import ArtifactExpired, ArtifactNotFound, IdempotencyMismatch, InvalidTransition, JobNotFound
from api.store.files import NewArtifact
from api.store.garbage import expire_files
from api.store.jobs import Terms
from api.store.models import ArtifactKind, Job, JobEvent
from api.store.states import State

SPEC = {"model": {"source": "builtin", "id": "gpt2"}, "name": "été"}


def accept(database, **changes):
    with database.transaction() as session:
        return jobs.accept_job(session, **{"tenant": "ann", "spec": SPEC, "max_attempts": 3} | changes)


def succeed(database, artifacts=()):
    """Run the best queued job to its end."""
    with database.transaction() as session:
        claim = leases.claim_next(session, worker="w", lease_s=60)
        leases.succeed(session, claim, {"loss": 1.5}, artifacts)
    return claim


def test_an_accepted_job_waits_with_its_first_event(database):
    job, replayed = accept(database, name="first", terms=Terms(priority=2), request_id="req_1")
    with database.reading() as session:
        stored = jobs.get_job(session, "ann", job.id)
        events = jobs.list_events(session, job.id, limit=10)
        clock = session.scalar(select(Job.created_at))
    assert not replayed
    assert (stored.spec, stored.state, stored.name, stored.priority) == (SPEC, State.QUEUED, "first", 2)
    assert (stored.version, stored.attempt, stored.progress, stored.request_id) == (1, 0, 0.0, "req_1")
    assert stored.created_at == clock
    assert clock.utcoffset() == timedelta(0)
    assert [(event.seq, event.type, event.data) for event in events] == [
        (1, "state", {"from": None, "to": "queued", "reason": "accepted"})
    ]


def test_a_rolled_back_acceptance_leaves_nothing(database):
    with database.transaction() as session:
        jobs.accept_job(session, tenant="ann", spec=SPEC, max_attempts=3, idempotency=("k", "h"))
        session.rollback()
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 0
    assert not accept(database, idempotency=("k", "h")).replayed


def test_the_same_request_gives_the_same_job(database):
    first = accept(database, idempotency=("k", "h"))
    again = accept(database, idempotency=("k", "h"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.job.id == first.job.id
    assert not accept(database, idempotency=("k", "h"), tenant="bob").replayed


def test_another_request_under_the_same_key_is_refused(database):
    accept(database, idempotency=("k", "h"))
    with pytest.raises(IdempotencyMismatch, match="'k'"):
        accept(database, idempotency=("k", "other"))


def test_requests_that_race_make_one_job(database):
    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(lambda _: accept(database, idempotency=("k", "h")), range(8)))
    assert len({job.id for job, _ in accepted}) == 1
    assert sorted(replayed for _, replayed in accepted) == [False] + [True] * 7
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_a_number_that_json_lacks_is_refused_at_once(database):
    with pytest.raises(Exception, match="not JSON compliant"):
        accept(database, spec={"loss": float("nan")})


def test_somebody_elses_job_does_not_exist(database):
    job, _ = accept(database)
    with database.transaction() as session:
        for read in (jobs.get_job, jobs.request_resume):
            with pytest.raises(JobNotFound):
                read(session, "bob", job.id)
            with pytest.raises(JobNotFound):
                read(session, "ann", "job_0")
        assert jobs.list_jobs(session, "bob", jobs.JobFilter(), limit=10) == []
        assert jobs.get_job(session, "ann", job.id).state == State.QUEUED


def test_pages_are_newest_first_and_stay_put(database):
    ids = [accept(database).job.id for _ in range(5)]
    with database.reading() as session:
        first = [job.id for job in jobs.list_jobs(session, "ann", jobs.JobFilter(), limit=2)]
    accept(database)
    with database.reading() as session:
        second = [job.id for job in jobs.list_jobs(session, "ann", jobs.JobFilter(), limit=10, after_id=first[-1])]
    assert first + second == ids[::-1]


def test_filters(database):
    old, new = accept(database, name="old").job, accept(database, name="new").job
    with database.transaction() as session:
        jobs.request_cancel(session, "ann", old.id, grace_s=30)
        session.execute(update(Job).where(Job.id == new.id).values(created_at=new.created_at + timedelta(hours=1)))

    def found(**filters):
        with database.reading() as session:
            return [job.id for job in jobs.list_jobs(session, "ann", jobs.JobFilter(**filters), limit=10)]

    assert found(state=State.CANCELLED) == [old.id]
    assert found(name="new") == [new.id]
    assert found(name="new", state=State.CANCELLED) == []
    assert found(created_after=old.created_at) == [new.id]
    assert found(created_before=new.created_at + timedelta(minutes=1)) == [old.id]


def test_cancelling_a_queued_job_ends_it(database):
    job, _ = accept(database)
    with database.transaction() as session:
        cancelled = jobs.request_cancel(session, "ann", job.id, grace_s=30)
    assert (cancelled.state, cancelled.version) == (State.CANCELLED, 2)
    assert cancelled.finished_at is not None
    with database.transaction() as session:
        assert leases.claim_next(session, worker="w", lease_s=60) is None


def test_cancelling_a_running_job_asks_its_worker(database):
    job, _ = accept(database)
    with database.transaction() as session:
        leases.claim_next(session, worker="w", lease_s=60)
    with database.transaction() as session:
        assert jobs.request_cancel(session, "ann", job.id, grace_s=30).state == State.CANCELLING
    with database.transaction() as session, pytest.raises(InvalidTransition) as refused:
        jobs.request_pause(session, "ann", job.id, grace_s=30)
    assert refused.value.allowed == ["cancelled", "failed", "succeeded"]


def test_cancelling_an_ended_job_is_refused(database):
    job, _ = accept(database)
    succeed(database)
    with database.transaction() as session, pytest.raises(InvalidTransition) as refused:
        jobs.request_cancel(session, "ann", job.id, grace_s=30)
    assert (refused.value.state, refused.value.allowed) == (State.SUCCEEDED, [])


def test_the_database_itself_keeps_ended_jobs_as_they_are(database):
    job, _ = accept(database)
    with database.transaction() as session:
        session.execute(update(Job).values(name="may change while queued"))
    succeed(database)
    for values in ({"state": State.QUEUED}, {"result": {"loss": 0.0}}):
        with pytest.raises(IntegrityError, match="an ended job never changes"), database.transaction() as session:
            session.execute(update(Job).where(Job.id == job.id).values(**values))
    with database.reading() as session:
        assert jobs.get_job(session, "ann", job.id).result == {"loss": 1.5}


def test_events_are_read_from_where_one_stopped(database):
    job, _ = accept(database)
    succeed(database)
    with database.reading() as session:
        assert [event.seq for event in jobs.list_events(session, job.id, limit=2)] == [1, 2]
        assert [event.seq for event in jobs.list_events(session, job.id, after=2, limit=2)] == [3]
        assert jobs.list_events(session, job.id, after=3, limit=2) == []


def test_artifacts_are_seen_by_their_tenant_only(database):
    job, _ = accept(database)
    file = {"sha256": "0" * 64, "bytes": 2**33, "storage_key": "k"}
    kinds = [(ArtifactKind.RESULT, "result.json"), (ArtifactKind.CHECKPOINT, "checkpoint/config.json")]
    succeed(database, [NewArtifact(kind=kind, path=path, media_type="m", **file) for kind, path in kinds])
    with database.reading() as session:
        listed = files.list_artifacts(session, job.id)
        assert [artifact.path for artifact in listed] == ["checkpoint/config.json", "result.json"]
        assert files.get_artifact(session, "ann", listed[0].id).bytes == 2**33
        with pytest.raises(ArtifactNotFound):
            files.get_artifact(session, "bob", listed[0].id)
        with pytest.raises(ArtifactNotFound):
            files.get_artifact(session, "ann", "art_0")


def test_readers_do_not_wait_for_a_writer(database):
    job, _ = accept(database)
    with database.transaction() as writer:
        jobs.request_cancel(writer, "ann", job.id, grace_s=30)
        with database.reading() as reader:
            assert jobs.get_job(reader, "ann", job.id).state == State.QUEUED


def of_checkpoint(job_id):
    """The only file of a job, in its checkpoint."""
    return {
        "path": "checkpoint/config.json",
        "sha256": "0" * 64,
        "bytes": 3,
        "storage_key": f"jobs/{job_id}/attempts/1/0",
    }


def go_on(session, job_id):
    return jobs.retry_job(session, "ann", job_id, from_start=False, max_attempts=3).job.id


def submit_to_use(session, job_id):
    spec = SPEC | {"model": {"source": "job", "id": job_id}, "data": {"source": "builtin"}}
    accepted = jobs.accept_job(session, tenant="ann", spec=spec, max_attempts=3).job.id
    for named in sources.named_in(spec):
        sources.files_of(session, "ann", named)
    return accepted


@pytest.fixture
def ended(database):
    """A job that has failed behind a state, which it has published."""
    job_id = accept(database).job.id
    with database.transaction() as session:
        claim = leases.claim_next(session, worker="w", lease_s=60)
        leases.record_checkpoint(session, claim, 1, [of_checkpoint(job_id)])
        leases.fail(session, claim, {"code": "c", "message": "m"}, retry=False)
    return job_id


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("use", [go_on, submit_to_use])
def test_files_do_not_expire_while_somebody_is_about_to_use_them(database, ended, use):
    """On SQLite there is one writer at a time."""

    def kept():
        with database.reading() as session:
            state = files.newest_checkpoint(session, ended) is not None
            return state, [file.expired_at is None for file in files.list_artifacts(session, ended)]

    with database.transaction() as about_to:
        child = use(about_to, ended)
        with database.transaction() as collector:
            expire_files(collector, retention_s=0)
        assert kept() == (True, [True])
    if use is submit_to_use:
        with database.transaction() as collector:
            expire_files(collector, retention_s=0)
        assert kept() == (True, [True])
    with database.transaction() as session:
        jobs.request_cancel(session, "ann", child, grace_s=0)
        expire_files(session, retention_s=0)
    assert kept() == (False, [False])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("use", [go_on, submit_to_use])
def test_who_is_about_to_use_files_that_expire_at_that_moment_waits_and_is_told(database, ended, use):
    def go():
        with database.transaction() as session:
            return jobs.get_job(session, "ann", use(session, ended)).kept_cycle

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as collector:
            expire_files(collector, retention_s=0)
            used = pool.submit(go)
            with pytest.raises(TimeoutError):
                used.result(timeout=0.5)
        if use is go_on:
            assert used.result() is None, "it begins anew"
        else:
            with pytest.raises(ArtifactExpired):
                used.result()
