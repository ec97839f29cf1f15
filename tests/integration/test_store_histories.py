"""Whatever happens in whatever order, zombies included, a job's record stays true to the transition table."""

from contextlib import suppress
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from api.store import files, jobs, leases, reconciliation
from api.store.database import db_now
from api.store.errors import InvalidTransition, LeaseLost
from api.store.files import NewArtifact
from api.store.models import Artifact, ArtifactKind, Attempt, Job
from api.store.states import LEASED, TRANSITIONS, State, is_terminal
from sentinel.events import MetricRecorded, Progressed

ENDS = [state for state in State if is_terminal(state)]
FILE = {"sha256": "0" * 64, "bytes": 1, "media_type": "text/plain", "storage_key": "k"}
KEPT = {"path": "checkpoint/config.json", "sha256": "0" * 64, "bytes": 1, "storage_key": "k"}
ERROR = {"code": "x", "fault": "service", "message": "Something broke.", "next_step": "Look."}


class Life:
    """One job and everybody who ever held its lease."""

    def __init__(self, session):
        session.execute(delete(Job))
        self.job_id = jobs.accept_job(session, tenant="ann", spec={}, max_attempts=2).job.id
        self.claims = []

    def claim(self, session, _, lease_s=60.0):
        session.execute(update(Job).where(Job.state == State.QUEUED).values(not_before=db_now(-1)))
        claim = leases.claim_next(session, worker=f"w{len(self.claims)}", lease_s=lease_s)
        self.claims += [claim] if claim else []

    def claim_and_vanish(self, session, which):
        self.claim(session, which, lease_s=-1)

    def reconcile(self, session, _):
        reconciliation.reconcile(session, limit=100)

    def cancel(self, session, _):
        jobs.request_cancel(session, "ann", self.job_id, grace_s=30)

    def pause(self, session, _):
        jobs.request_pause(session, "ann", self.job_id, grace_s=30)

    def resume(self, session, _):
        jobs.request_resume(session, "ann", self.job_id)

    def miss_deadline(self, session, _):
        session.execute(update(Job).where(Job.state.not_in(ENDS)).values(deadline=db_now(-1)))
        reconciliation.reconcile(session, limit=100)

    def work(self, session, which):
        claim = self.claims[which % len(self.claims)]
        leases.heartbeat(session, claim, 60)
        leases.record_events(session, claim, [Progressed(fraction=0.5), MetricRecorded(name="loss", value=1, step=1)])
        leases.record_checkpoint(session, claim, session.get(Job, self.job_id).last_seq, [KEPT])

    def succeed(self, session, which):
        artifact = NewArtifact(kind=ArtifactKind.LOG, path="log.txt", **FILE)
        leases.succeed(session, self.claims[which % len(self.claims)], {}, [artifact])

    def fail(self, session, which):
        leases.fail(session, self.claims[which % len(self.claims)], ERROR, retry=which % 2 == 0)

    def finish_cancel(self, session, which):
        leases.finish_cancel(session, self.claims[which % len(self.claims)])

    def release(self, session, which):
        leases.release(session, self.claims[which % len(self.claims)], "drain")


WORKER_ACTS = (Life.work, Life.succeed, Life.fail, Life.finish_cancel, Life.release)
ACTS = (Life.claim, Life.claim_and_vanish, Life.reconcile, Life.cancel, Life.pause, Life.resume, Life.miss_deadline)
ACTS += WORKER_ACTS


@given(plan=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5)), max_size=25))
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_history_obeys_the_table(database, plan):
    with database.transaction() as session:
        life = Life(session)
    before = read(database, life)
    for act, which in plan:
        if act in WORKER_ACTS and not life.claims:
            continue
        with suppress(LeaseLost, InvalidTransition), database.transaction() as session:
            act(life, session, which)
        after = read(database, life)
        check_change(before, after)
        before = after


def read(database, life):
    with database.reading() as session:
        job = jobs.get_job(session, "ann", life.job_id)
        events = jobs.list_events(session, life.job_id, limit=1000)
        open_attempts = session.scalars(select(Attempt.token).where(Attempt.finished_at.is_(None))).all()
        artifacts = session.scalars(select(Artifact.token)).all()
        kept = files.newest_checkpoint(session, life.job_id)
    return job, events, open_attempts, artifacts, kept


def check_change(before, after):
    job, events, open_attempts, artifacts, kept = after
    assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    steps = [(event.data["from"], event.data["to"]) for event in events if event.type == "state"]
    assert all(later[0] == earlier[1] and later[1] in TRANSITIONS[later[0]] for earlier, later in pairwise(steps))
    assert steps[-1][1] == job.state
    assert open_attempts == ([job.lease_token] if job.state in LEASED else [])
    assert job.kept_cycle == (kept and kept.cycle)
    left = [kept.token] if kept and is_terminal(job.state) else []
    assert artifacts == ([job.lease_token] if job.state == State.SUCCEEDED else left)
    assert (job.finished_at is not None) == is_terminal(job.state)
    assert (job.error is not None) == (job.state == State.FAILED)
    assert job.attempt <= job.max_attempts
    if is_terminal(before[0].state):
        assert (job.version, len(events)) == (before[0].version, len(before[1]))
    if len(events) > len(before[1]):
        assert job.version > before[0].version
