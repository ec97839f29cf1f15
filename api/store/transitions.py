"""The compare-and-set that every state write goes through, and the event and the webhooks' messages that go with it.

Knows how to write a step safely; `states` knows which steps exist, `jobs` and `leases` when to take one.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import InvalidTransition
from api.store.models import Job, JobEvent
from api.store.outbox import announce
from api.store.states import TRANSITIONS, State, allowed_from, is_terminal


def lock_job(session: Session, job_id: str) -> Job | None:
    """Read a job as it is now and keep others from writing it until the transaction ends.

    SQLite ignores FOR UPDATE: there the writing transaction itself holds the lock.
    """
    query = select(Job).where(Job.id == job_id).with_for_update()
    return session.scalar(query, execution_options={"populate_existing": True})


def move(session: Session, job: Job, to: State, *, reason: str, **values: object) -> Job:
    """Take one step of the table: state, version and event in one statement each, for the row as `job` shows it.

    Args:
        session: A writing transaction.
        job: The job as `lock_job` read it.
        to: The state that follows.
        reason: Why, for the reader of the events.
        values: Further columns to set.

    Raises:
        InvalidTransition: The table has no such step, or the row is no longer as `job` shows it.
    """
    if to not in TRANSITIONS[job.state]:
        raise InvalidTransition(state=job.state, to=to, allowed=allowed_from(job.state))
    before = job.state
    if is_terminal(to):
        values["finished_at"] = db_now()
    moved = session.scalar(
        update(Job)
        .where(Job.id == job.id, Job.state == before, Job.lease_token == job.lease_token)
        .values(state=to, version=Job.version + 1, last_seq=Job.last_seq + 1, updated_at=db_now(), **values)
        .returning(Job),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if moved is None:
        raise InvalidTransition(state=before, to=to, allowed=allowed_from(before))
    add_event(session, moved, moved.last_seq, "state", {"from": before, "to": to, "reason": reason})
    announce(session, moved)
    return moved


def add_event(session: Session, job: Job, seq: int, kind: str, data: Mapping[str, Any]) -> None:
    """Append one line of history under a `seq` that the caller has just taken from `jobs.last_seq`."""
    token = job.lease_token or None
    session.add(JobEvent(job_id=job.id, seq=seq, token=token, type=kind, data=dict(data)))
