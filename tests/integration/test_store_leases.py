"""What a worker may do: claim once, write only under its token, end a job once; what the reconciler does without it.

An expired lease is made by a claim of negative length, so no test waits for a clock.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from threading import Barrier

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url

from api.store import files, jobs, leases, reconciliation
from api.store.database import create_database, db_now
from api.store.errors import DeadlineInvalid, InvalidTransition, LeaseLost
from api.store.files import NewArtifact
from api.store.garbage import drop_superseded_states
from api.store.jobs import Terms
from api.store.leases import Command
from api.store.models import Artifact, ArtifactKind, Checkpoint, Job, JobEvent, Metric, Outcome
from api.store.states import State
from sentinel.events import MessageLogged, MetricRecorded, Phase, PhaseStarted, Progressed

MANIFEST = [{"path": "state.json", "sha256": "0" * 64, "bytes": 3, "storage_key": "jobs/j/attempts/1/0"}]
ERROR = {"code": "data_invalid", "fault": "user", "message": "The text is empty.", "next_step": "Check it."}
ARTIFACT = NewArtifact(
    kind=ArtifactKind.RESULT,
    path="result.json",
    sha256="0" * 64,
    bytes=3,
    media_type="application/json",
    storage_key="k",
)


def accept(database, **changes):
    with database.transaction() as session:
        values = {"tenant": "ann", "spec": {"seed": 1}, "max_attempts": 3} | changes
        return jobs.accept_job(session, **values).job.id


def claim(database, lease_s=60.0, worker="w"):
    with database.transaction() as session:
        return leases.claim_next(session, worker=worker, lease_s=lease_s)


def write(database, function, *arguments, **options):
    with database.transaction() as session:
        return function(session, *arguments, **options)


def make_due(database):
    with database.transaction() as session:
        session.execute(update(Job).where(Job.state == State.QUEUED).values(not_before=db_now(-1)))


def read(database, job_id):
    with database.reading() as session:
        return jobs.get_job(session, "ann", job_id)


def attempts(database, job_id):
    with database.reading() as session:
        return jobs.list_attempts(session, job_id)


def history(database, job_id):
    """The job's events, proven gapless, and its states in order, proven to follow each other."""
    with database.reading() as session:
        events = jobs.list_events(session, job_id, limit=10_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    steps = [event.data for event in events if event.type == "state"]
    assert [step["from"] for step in steps[1:]] == [step["to"] for step in steps[:-1]]
    return events, [step["to"] for step in steps]


def test_the_best_due_job_is_claimed_first(database):
    old, urgent, late = (
        accept(database),
        accept(database, terms=Terms(priority=1)),
        accept(database, terms=Terms(priority=2)),
    )
    young = accept(database)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == late).values(not_before=db_now(3600)))
    claimed = [claim(database) for _ in range(4)]
    assert [taken and taken.job_id for taken in claimed] == [urgent, old, young, None]


def test_a_claim_starts_an_attempt(database):
    job_id = accept(database)
    taken = claim(database, worker="host-1")
    job, (attempt,) = read(database, job_id), attempts(database, job_id)
    assert (taken.job_id, taken.token, taken.attempt, taken.spec, taken.resume) == (job_id, 1, 1, {"seed": 1}, None)
    assert (job.state, job.attempt, job.lease_owner, job.version) == (State.RUNNING, 1, "host-1", 2)
    assert (job.lease_expires_at - job.started_at).total_seconds() == pytest.approx(60, abs=5)
    assert (attempt.token, attempt.number, attempt.worker, attempt.outcome) == (1, 1, "host-1", None)


def test_threads_that_claim_at_once_get_every_job_once(database):
    ids = {accept(database) for _ in range(20)}
    start = Barrier(8)

    def take_all(number):
        start.wait()
        return [taken.job_id for taken in iter(lambda: claim(database, worker=f"w{number}"), None)]

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for share in pool.map(take_all, range(8)) for job_id in share]
    left = []
    while found := claim(database):  # SKIP LOCKED may let the last thread stop while another still holds a row
        left.append(found.job_id)
    assert sorted(taken + left) == sorted(ids)
    assert all(len(attempts(database, job_id)) == 1 for job_id in ids)


def test_a_job_succeeds_with_everything_it_said(database):
    job_id = accept(database)
    taken = claim(database)
    said = [
        PhaseStarted(phase=Phase.HEALING, cycle=2),
        Progressed(fraction=0.25),
        MetricRecorded(name="loss", value=2.5, step=10, cycle=2),
        MessageLogged(text="Kept layer 3."),
        Progressed(fraction=0.5),
    ]
    write(database, leases.record_events, taken, said)
    job = read(database, job_id)
    assert (job.phase, job.cycle, job.progress, job.version) == ("healing", 2, 0.5, 3)
    write(database, leases.record_checkpoint, taken, 2, MANIFEST)
    write(database, leases.succeed, taken, {"loss": 1.5}, [ARTIFACT])

    job, (attempt,) = read(database, job_id), attempts(database, job_id)
    assert (job.state, job.phase, job.progress, job.result) == (State.SUCCEEDED, None, 1.0, {"loss": 1.5})
    assert (job.lease_owner, job.lease_expires_at, job.error) == (None, None, None)
    assert job.finished_at >= attempt.finished_at >= job.started_at
    assert attempt.outcome == Outcome.SUCCEEDED
    events, states = history(database, job_id)
    assert [event.type for event in events] == ["state", "state", "phase", "metric", "message", "checkpoint", "state"]
    assert events[2].data == {"phase": "healing", "cycle": 2}
    assert [event.token for event in events] == [None, 1, 1, 1, 1, 1, 1]
    assert states == ["queued", "running", "succeeded"]
    with database.reading() as session:
        (artifact,) = files.list_artifacts(session, job_id)
    assert (artifact.token, artifact.kind, artifact.path) == (1, ArtifactKind.RESULT, "result.json")


def test_a_heartbeat_keeps_the_lease_and_brings_the_cancel(database):
    job_id = accept(database)
    taken = claim(database, lease_s=-1)
    assert write(database, leases.heartbeat, taken, 60).command == Command.CONTINUE
    assert write(database, reconciliation.reconcile, limit=100).waiting == []
    before = read(database, job_id).version
    write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
    assert write(database, leases.heartbeat, taken, 60) == (Command.CANCEL, 30)
    assert read(database, job_id).version == before + 1
    write(database, leases.finish_cancel, taken)
    assert read(database, job_id).state == State.CANCELLED
    assert attempts(database, job_id)[0].outcome == Outcome.CANCELLED
    assert history(database, job_id)[1] == ["queued", "running", "cancelling", "cancelled"]


def test_a_cancel_can_be_hastened_but_not_slowed(database):
    job_id = accept(database)
    taken = claim(database)
    for grace_s in (30, 2.5):
        assert write(database, jobs.request_cancel, "ann", job_id, grace_s=grace_s).state == State.CANCELLING
        assert write(database, leases.heartbeat, taken, 60) == (Command.CANCEL, grace_s)
    for grace_s in (60, 2.5):
        with pytest.raises(InvalidTransition):
            write(database, jobs.request_cancel, "ann", job_id, grace_s=grace_s)
        assert write(database, leases.heartbeat, taken, 60) == (Command.CANCEL, 2.5)
    assert history(database, job_id)[1] == ["queued", "running", "cancelling"]


def in_s(database, seconds):
    """A time by the database's clock."""
    with database.reading() as session:
        return session.scalar(select(db_now(seconds)))


def pass_deadline(database):
    with database.transaction() as session:
        session.execute(update(Job).values(deadline=db_now(-1)))


def test_a_worker_is_told_to_give_up_at_the_deadline_and_not_before(database):
    job_id = accept(database, terms=Terms(deadline=in_s(database, 3600)))
    taken = claim(database)
    assert write(database, leases.heartbeat, taken, 60).command == Command.CONTINUE
    write(database, jobs.request_pause, "ann", job_id, grace_s=30)
    pass_deadline(database)
    assert write(database, leases.heartbeat, taken, 60).command == Command.GIVE_UP
    assert write(database, reconciliation.reconcile, limit=9).waiting == []
    assert read(database, job_id).state == State.PAUSING, "its worker ends it"


@pytest.mark.parametrize("state", ["queued", "paused"])
def test_what_no_worker_holds_fails_at_its_deadline(database, state):
    job_id = accept(database, terms=Terms(deadline=in_s(database, 3600)))
    write(database, leases.record_checkpoint, taken := claim(database), 1, KEPT)
    if state == "paused":
        write(database, jobs.request_pause, "ann", job_id, grace_s=0)
    write(database, leases.release, taken, state)
    assert read(database, job_id).state == state
    pass_deadline(database)
    assert claim(database) is None
    assert write(database, reconciliation.reconcile, limit=9).waiting == []
    job = read(database, job_id)
    assert (job.state, job.error["code"], job.error["fault"]) == (State.FAILED, "deadline_exceeded", "user")
    assert "checkpoint" in job.error["log_tail"]
    assert job.finished_at is not None
    with database.reading() as session:
        assert [file.path for file in files.list_artifacts(session, job_id)] == [
            "checkpoint/config.json",
            "metrics.jsonl",
        ]
    assert history(database, job_id)[1][-1] == "failed"


def test_a_deadline_that_nobody_could_keep_is_refused(database):
    later = in_s(database, 3600)
    for terms in (Terms(deadline=in_s(database, -1)), Terms(deadline=later, not_before=in_s(database, 7200))):
        with pytest.raises(DeadlineInvalid, match="before the job may start"):
            accept(database, terms=terms)
    accept(database, terms=Terms(deadline=later, not_before=in_s(database, 60)))
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_deadline_at_the_end_of_time_hinders_nobody_wherever_the_database_lies(database_url, zone):
    """Read in a zone east of UTC it would lie past the last year that Python knows."""
    query = {"options": f"-c timezone={zone}"} if database_url.startswith("postgresql") else {}
    database = create_database(make_url(database_url).update_query_dict(query).render_as_string(hide_password=False))
    last = datetime.max.replace(tzinfo=UTC)
    job_id = accept(database, terms=Terms(deadline=last))
    assert claim(database).job_id == job_id
    assert read(database, job_id).deadline == last
    database.close()


KEPT = [
    {"path": "state.json", "sha256": "0" * 64, "bytes": 3, "storage_key": "k0"},
    {"path": "metrics.jsonl", "sha256": "1" * 64, "bytes": 4, "storage_key": "k1"},
    {"path": "checkpoint/config.json", "sha256": "2" * 64, "bytes": 5, "storage_key": "k2"},
]


def cancel_by_worker(database, job_id, taken):
    write(database, jobs.request_cancel, "ann", job_id, grace_s=0)
    write(database, leases.finish_cancel, taken)


def cancel_when_paused(database, job_id, taken):
    write(database, jobs.request_pause, "ann", job_id, grace_s=0)
    write(database, leases.release, taken, "pause")
    write(database, jobs.request_cancel, "ann", job_id, grace_s=0)


def fail(database, job_id, taken):
    write(database, leases.fail, taken, ERROR, retry=False)


def lose_the_worker(database, job_id, taken):
    write(database, leases.heartbeat, taken, -1)
    write(database, reconciliation.reconcile, limit=100)


@pytest.mark.parametrize("end", [cancel_by_worker, cancel_when_paused, fail, lose_the_worker])
def test_a_job_that_ends_without_a_result_leaves_its_last_cycle_to_its_readers(database, end):
    job_id = accept(database, max_attempts=1)
    taken = claim(database)
    for cycle in (1, 2):
        state = [file | {"storage_key": f"{file['storage_key']}/{cycle}"} for file in KEPT]
        write(database, leases.record_checkpoint, taken, cycle, state)
    with database.reading() as session:
        assert files.list_artifacts(session, job_id) == []
    end(database, job_id, taken)
    with database.reading() as session:
        left = files.list_artifacts(session, job_id)
    assert [(file.path, file.kind, file.storage_key, file.token) for file in left] == [
        ("checkpoint/config.json", ArtifactKind.CHECKPOINT, "k2/2", taken.token),
        ("metrics.jsonl", ArtifactKind.METRICS, "k1/2", taken.token),
    ]
    assert read(database, job_id).kept_cycle == 2


def test_a_newer_state_of_a_healing_takes_the_place_of_the_older(database):
    job_id = accept(database)
    taken = claim(database)
    write(database, leases.record_checkpoint, taken, 1, MANIFEST)
    for step in (25, 50):
        manifest = [file | {"storage_key": f"{file['storage_key']}/{step}"} for file in KEPT]
        write(database, leases.record_checkpoint, taken, 1, manifest, step=step)
    with database.reading() as session:
        assert session.scalars(select(Checkpoint.manifest).where(Checkpoint.job_id == job_id)).all() == [manifest]
        details = [e.data for e in jobs.list_events(session, job_id, limit=99) if e.type == "checkpoint"]
    assert details == [{"cycle": 1}, {"cycle": 1, "step": 25}, {"cycle": 1, "step": 50}]


def test_whoever_began_anew_is_followed_at_its_own_states(database):
    """What an earlier claim had kept further on was lost: nothing may be lost for it again."""
    job_id = accept(database)
    for cycles in ([3], [1, 2]):
        taken = claim(database)
        for cycle in cycles:
            state = [file | {"storage_key": f"{taken.token}/{cycle}"} for file in KEPT]
            write(database, leases.record_checkpoint, taken, cycle, state)
        write(database, drop_superseded_states)
        write(database, leases.release, taken, "drain")
        make_due(database)
    taken = claim(database)
    assert {file["storage_key"] for file in taken.resume} == {"2/2"}
    assert read(database, job_id).kept_cycle == 2
    cancel_by_worker(database, job_id, taken)
    with database.reading() as session:
        assert {file.storage_key for file in files.list_artifacts(session, job_id)} == {"2/2"}


def test_a_pause_is_heard_and_resumed_behind_what_was_kept(database):
    job_id = accept(database)
    taken = claim(database)
    write(database, jobs.request_pause, "ann", job_id, grace_s=30)
    assert write(database, leases.heartbeat, taken, 60) == (Command.PAUSE, 30)
    write(database, leases.record_checkpoint, taken, 1, MANIFEST)
    write(database, leases.release, taken, "pause")
    job = read(database, job_id)
    assert (job.state, job.attempt, job.lease_owner, job.finished_at) == (State.PAUSED, 0, None, None)
    assert write(database, reconciliation.reconcile, limit=100).waiting == []
    assert claim(database) is None

    write(database, jobs.request_resume, "ann", job_id)
    again = claim(database)
    assert (again.token, again.attempt, again.resume) == (2, 1, tuple(MANIFEST))
    assert history(database, job_id)[1] == ["queued", "running", "pausing", "paused", "queued", "running"]


def test_a_pause_can_be_taken_back_before_and_after_the_worker_stops(database):
    job_id = accept(database)
    taken = claim(database)
    write(database, jobs.request_pause, "ann", job_id, grace_s=30)
    write(database, jobs.request_resume, "ann", job_id)
    assert write(database, leases.heartbeat, taken, 60).command == Command.CONTINUE
    write(database, leases.release, taken, "pause")
    assert read(database, job_id).state == State.QUEUED


def test_a_resumed_job_has_waited_since_it_was_resumed_and_keeps_a_start_that_is_to_come(database):
    paused, later = accept(database), accept(database)
    for job_id, wait_s in ((paused, -3600), (later, 3600)):
        write(database, jobs.request_pause, "ann", job_id, grace_s=0)
        with database.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=db_now(wait_s)))
        write(database, jobs.request_resume, "ann", job_id)
    taken = claim(database)
    assert (taken.job_id, taken.waited_s < 60) == (paused, True)
    assert claim(database) is None


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_lost_worker_of_a_job_that_was_to_be_paused_pauses_it_while_attempts_last(database, max_attempts):
    job_id = accept(database, max_attempts=max_attempts)
    claim(database, lease_s=-1)
    write(database, jobs.request_pause, "ann", job_id, grace_s=30)
    write(database, reconciliation.reconcile, limit=100)
    assert read(database, job_id).state == (State.PAUSED if max_attempts == 2 else State.FAILED)


def test_a_paused_job_can_be_cancelled_and_an_ended_one_not_paused_or_resumed(database):
    job_id = accept(database)
    write(database, jobs.request_pause, "ann", job_id, grace_s=30)
    write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
    assert read(database, job_id).finished_at is not None
    for request, options in ((jobs.request_pause, {"grace_s": 0}), (jobs.request_resume, {})):
        with pytest.raises(InvalidTransition, match="allowed: nothing"):
            write(database, request, "ann", job_id, **options)


def test_a_lost_worker_gives_way_to_another_that_resumes(database, monkeypatch):
    monkeypatch.setattr(reconciliation, "FIRST_BACKOFF_S", 60.0)  # a busy machine may stand still for a second
    job_id = accept(database)
    lost = claim(database)
    for cycle in (1, 2):
        files = [MANIFEST[0] | {"path": f"cycle-{cycle}"}]
        write(database, leases.record_checkpoint, lost, cycle, files)
    write(database, leases.heartbeat, lost, -1)

    assert write(database, reconciliation.reconcile, limit=100).waiting == []
    job, (attempt,) = read(database, job_id), attempts(database, job_id)
    assert (job.state, job.attempt, job.error, job.lease_owner) == (State.QUEUED, 1, None, None)
    assert job.not_before > job.updated_at
    assert (attempt.outcome, attempt.error["code"]) == (Outcome.WORKER_LOST, "worker_lost")
    assert claim(database) is None

    make_due(database)
    assert write(database, reconciliation.reconcile, limit=100).waiting == [job_id]
    second = claim(database)
    assert (second.token, second.attempt, [file["path"] for file in second.resume]) == (2, 2, ["cycle-2"])
    write(database, leases.succeed, second, {}, [ARTIFACT])
    assert history(database, job_id)[1] == ["queued", "running", "queued", "running", "succeeded"]


def test_back_off_doubles_until_the_attempts_are_used_up(database):
    job_id = accept(database, max_attempts=3)
    delays = []
    for _ in range(2):
        claim(database, lease_s=-1)
        write(database, reconciliation.reconcile, limit=100)
        job = read(database, job_id)
        delays.append((job.not_before - job.updated_at).total_seconds())
        make_due(database)
    assert delays == pytest.approx([1, 2], abs=0.5)
    claim(database, lease_s=-1, worker="host-3")
    assert write(database, reconciliation.reconcile, limit=100).waiting == []
    job = read(database, job_id)
    assert (job.state, job.attempt, job.finished_at is None) == (State.FAILED, 3, False)
    assert (job.error["code"], job.error["fault"]) == ("worker_lost", "service")
    assert "host-3" in job.error["message"]
    assert "claimed by host-3" in job.error["log_tail"].splitlines()[-1]
    assert "log" in job.error["next_step"]
    assert history(database, job_id)[1][-1] == "failed"


def test_a_lost_worker_of_a_cancelled_job_ends_it(database):
    job_id = accept(database)
    claim(database, lease_s=-1)
    write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
    write(database, reconciliation.reconcile, limit=100)
    assert read(database, job_id).state == State.CANCELLED
    assert attempts(database, job_id)[0].outcome == Outcome.WORKER_LOST


def test_the_reconciler_names_the_best_of_what_waits_and_no_more_than_asked(database):
    young, old, urgent = (
        accept(database, terms=Terms(priority=-1)),
        accept(database),
        accept(database, terms=Terms(priority=5)),
    )
    assert write(database, reconciliation.reconcile, limit=2).waiting == [urgent, old]
    assert write(database, reconciliation.reconcile, limit=9).waiting == [urgent, old, young]


def test_reconcilers_at_once_expire_each_lease_once(database):
    ids = [accept(database) for _ in range(6)]
    for _ in ids:
        claim(database, lease_s=-1)
    start = Barrier(4)

    def reconcile(_):
        start.wait()
        write(database, reconciliation.reconcile, limit=100)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(reconcile, range(4)))
    assert [history(database, job_id)[1] for job_id in ids] == [["queued", "running", "queued"]] * 6


WRITES = {
    "heartbeat": (leases.heartbeat, 60),
    "record_events": (leases.record_events, [MetricRecorded(name="loss", value=0.0, step=1), Progressed(fraction=1)]),
    "record_checkpoint": (leases.record_checkpoint, 9, MANIFEST),
    "succeed": (leases.succeed, {"loss": 0.0}, [ARTIFACT]),
    "finish_cancel": (leases.finish_cancel,),
    "release": (leases.release, "drain"),
}


@pytest.mark.parametrize("now", ["queued", "claimed again", "succeeded"])
def test_a_zombie_writes_nothing(database, now):
    job_id = accept(database)
    zombie = claim(database, lease_s=-1)
    write(database, reconciliation.reconcile, limit=100)
    make_due(database)
    if now != "queued":
        heir = claim(database)
    if now == "succeeded":
        write(database, leases.succeed, heir, {"loss": 1.5}, [])
    before = (read(database, job_id).version, count_rows(database))
    for function, *arguments in WRITES.values():
        with pytest.raises(LeaseLost, match="Token 1"):
            write(database, function, zombie, *arguments)
    for retry in (True, False):
        with pytest.raises(LeaseLost):
            write(database, leases.fail, zombie, ERROR, retry=retry)
    assert (read(database, job_id).version, count_rows(database)) == before


def count_rows(database):
    with database.reading() as session:
        tables = (JobEvent, Metric, Checkpoint, Artifact)
        return [session.scalar(select(func.count()).select_from(table)) for table in tables]


def test_a_released_job_goes_on_elsewhere_without_charge(database):
    job_id = accept(database, max_attempts=1)
    taken = claim(database)
    write(database, leases.record_checkpoint, taken, 1, MANIFEST)
    write(database, leases.release, taken, "drain")
    assert attempts(database, job_id)[0].outcome == Outcome.RELEASED
    again = claim(database)
    assert (again.token, again.attempt, again.resume) == (2, 1, tuple(MANIFEST))


def test_a_release_of_a_cancelled_job_ends_it(database):
    job_id = accept(database)
    taken = claim(database)
    write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
    write(database, leases.release, taken, "drain")
    assert read(database, job_id).state == State.CANCELLED


def test_a_failure_that_may_pass_is_tried_again_while_attempts_last(database):
    job_id = accept(database, max_attempts=2)
    assert write(database, leases.fail, claim(database), ERROR, retry=True, backoff_s=3600) == State.QUEUED
    assert (read(database, job_id).error, attempts(database, job_id)[0].error) == (None, ERROR)
    assert claim(database) is None
    make_due(database)
    assert write(database, leases.fail, claim(database), ERROR, retry=True) == State.FAILED
    assert read(database, job_id).error == ERROR


def test_a_failure_that_will_not_pass_ends_the_job(database):
    job_id = accept(database)
    assert write(database, leases.fail, claim(database), ERROR, retry=False) == State.FAILED
    job, (attempt,) = read(database, job_id), attempts(database, job_id)
    assert (job.error, job.result, attempt.outcome, attempt.error) == (ERROR, None, Outcome.FAILED, ERROR)
    assert history(database, job_id)[0][-1].data["reason"] == ERROR["message"]


def test_a_failing_job_that_is_cancelled_is_not_tried_again(database):
    job_id = accept(database)
    taken = claim(database)
    write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
    assert write(database, leases.fail, taken, ERROR, retry=True) == State.CANCELLED


def test_nobody_stops_what_was_not_cancelled(database):
    accept(database)
    with pytest.raises(InvalidTransition, match="running job cannot become cancelled"):
        write(database, leases.finish_cancel, claim(database))


def test_events_of_many_writers_have_no_gap(database):
    job_id = accept(database)
    taken = claim(database)

    def record(number):
        for step in range(5):
            said = [
                MessageLogged(text=f"{number}.{step}"),
                MetricRecorded(name="loss", value=1.0, step=step, cycle=number),
            ]
            write(database, leases.record_events, taken, said)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(4)))
    events, _ = history(database, job_id)
    assert len(events) == 2 + 4 * 5 * 2
    with database.reading() as session:
        assert len(jobs.list_metrics(session, job_id)) == 20


def test_where_attempts_overlap_the_latest_measurement_counts(database):
    job_id = accept(database)
    lost = claim(database)
    first = [MetricRecorded(name="loss", value=1.0, step=step, cycle=1) for step in (1, 2, 3)]
    write(database, leases.record_events, lost, [*first, MetricRecorded(name="kl", value=0.0, step=0)])
    write(database, leases.heartbeat, lost, -1)
    write(database, reconciliation.reconcile, limit=100)
    make_due(database)
    write(database, leases.record_events, claim(database), [MetricRecorded(name="loss", value=2.0, step=2, cycle=1)])
    with database.reading() as session:
        points = [(point.name, point.step, point.value) for point in jobs.list_metrics(session, job_id)]
        losses = jobs.list_metrics(session, job_id, name="loss")
    assert points == [("kl", 0, 0.0), ("loss", 1, 1.0), ("loss", 2, 2.0), ("loss", 3, 1.0)]
    assert [point.token for point in losses] == [1, 2, 1]


def test_a_cancel_that_races_the_end_leaves_one_end(database):
    for _ in range(10):
        job_id = accept(database)
        taken = claim(database)
        start = Barrier(2)

        def cancel(job_id=job_id, start=start):
            start.wait()
            with suppress(InvalidTransition):
                write(database, jobs.request_cancel, "ann", job_id, grace_s=30)
                return "cancelling"
            return "too late"

        def finish(taken=taken, start=start):
            start.wait()
            write(database, leases.succeed, taken, {}, [ARTIFACT])

        with ThreadPoolExecutor(2) as pool:
            cancelled, finished = pool.submit(cancel), pool.submit(finish)
            finished.result()
        states = history(database, job_id)[1]
        assert states[-1] == "succeeded"
        assert ("cancelling" in states) == (cancelled.result() == "cancelling")
