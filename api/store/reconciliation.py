"""What becomes of jobs that no worker speaks for: leases that ran out, deadlines that passed, what waits unheard.

Several processes may do this at once; every round is idempotent. Knows no queue: who is to be woken is only named.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import DeadlineExceeded, WorkerLost
from api.store.files import publish_newest_state
from api.store.leases import after_failure, leave
from api.store.models import Job, JobEvent, Outcome
from api.store.placement import due
from api.store.states import LEASED, UNHELD, State
from api.store.sweeps import cancel_spent
from api.store.transitions import move

# After a lost worker: 1, 2, 4, … seconds, at most these.
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 300.0
LAST_WORDS = 20  # lines of its history that the error of a lost worker shows


class Round(NamedTuple):
    """What a round did and found.

    Attributes:
        waiting: Ids of queued jobs that are due, best first: workers should be woken for them.
        expired: How many leases were taken away.
        missed: How many waiting jobs failed at their deadline.
    """

    waiting: list[str]
    expired: int
    missed: int


def reconcile(session: Session, *, limit: int) -> Round:
    """Take away leases that have expired, end what missed its deadline or has no budget, find what waits.

    Of what waits, at most `limit`.
    """
    expired = _locked(session, Job.state.in_(LEASED), Job.lease_expires_at < db_now())
    for job in expired:
        _expire(session, job)
    missed = _locked(session, Job.state.in_(UNHELD), Job.deadline <= db_now())
    for job in missed:
        _miss_deadline(session, job)
    cancel_spent(session)
    waiting = session.scalars(
        select(Job.id).where(*due()).order_by(Job.priority.desc(), Job.created_at, Job.id).limit(limit)
    )
    return Round(list(waiting), expired=len(expired), missed=len(missed))


def _locked(session: Session, *conditions: ColumnElement[bool]) -> Sequence[Job]:
    """The jobs that meet the conditions and that nobody else is writing."""
    query = select(Job).where(*conditions).with_for_update(skip_locked=True)
    return session.scalars(query, execution_options={"populate_existing": True}).all()


def _miss_deadline(session: Session, job: Job) -> None:
    missed = DeadlineExceeded()
    error = {**missed.as_dict(), "log_tail": _last_words(session, job)}
    publish_newest_state(session, job.id)
    move(session, job, State.FAILED, reason=missed.message, error=error)


def _expire(session: Session, job: Job) -> None:
    lost = WorkerLost(f"Worker {job.lease_owner} stopped answering in attempt {job.attempt}.")
    error = {**lost.as_dict(), "log_tail": _last_words(session, job)}
    delay_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (job.attempt - 1))
    to = after_failure(job)
    leave(session, job, to, Outcome.WORKER_LOST, reason=error["message"], error=error, not_before=db_now(delay_s))


def _last_words(session: Session, job: Job) -> str:
    """The newest lines of a job's history: all that is left of the log of a worker that is gone."""
    newest = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq.desc()).limit(LAST_WORDS)
    lines = [f"{event.created_at:%H:%M:%S} {event.type} {event.data}" for event in session.scalars(newest)]
    return "\n".join(reversed(lines))
