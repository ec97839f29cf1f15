"""What jobs have taken, by the key that submitted them: their number, time in slots, and bytes of files.

Only counts; what is too much is in `quotas`.
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, SQLColumnExpression, case, func, literal, or_, select
from sqlalchemy.orm import Session

from api.store.database import UtcDateTime, db_now, seconds_between
from api.store.models import Artifact, Attempt, Job
from api.store.states import State


class Period(NamedTuple):
    """From `start` until before `end`."""

    start: datetime
    end: datetime


def month_of(time: datetime) -> Period:
    """The calendar month, in UTC, in which a time lies."""
    start = time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period(start, (start + timedelta(days=31)).replace(day=1))


def of_key(tenant: str, key_id: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a job that the key submitted."""
    return Job.tenant == tenant, Job.key_id == key_id


def jobs_by_state(session: Session, *of: ColumnElement[bool]) -> dict[str | None, dict[State, int]]:
    """By key, how many of the jobs that meet the conditions are in each state."""
    query = select(Job.key_id, Job.state, func.count()).where(*of).group_by(Job.key_id, Job.state)
    counted: dict[str | None, dict[State, int]] = defaultdict(dict)
    for key_id, state, number in session.execute(query):
        counted[key_id][state] = number
    return counted


def gpu_seconds(session: Session, *of: ColumnElement[bool], period: Period) -> dict[str | None, float]:
    """By key, for how long its jobs held slots within the period, those that still do up to now."""
    began = _clipped(Attempt.started_at, Attempt.started_at < period.start, period.start)
    left = func.coalesce(Attempt.finished_at, db_now())
    ended = _clipped(left, left > period.end, period.end)
    query = (
        select(Job.key_id, func.sum(seconds_between(began, ended)))
        .join(Attempt, Attempt.job_id == Job.id)
        .where(*of, or_(Job.finished_at.is_(None), Job.finished_at > period.start))
        .where(Attempt.started_at < period.end, left > period.start)
        .group_by(Job.key_id)
    )
    return dict(session.execute(query).all())


def stored_bytes(session: Session, *of: ColumnElement[bool]) -> dict[str | None, int]:
    """By key, how much the files take that its jobs have published and that are still kept."""
    query = select(Job.key_id, func.sum(Artifact.bytes)).join(Artifact, Artifact.job_id == Job.id)
    kept = query.where(*of, Artifact.expired_at.is_(None)).group_by(Job.key_id)
    return {key_id: int(size) for key_id, size in session.execute(kept)}


def _clipped(
    time: SQLColumnExpression[datetime], beyond: ColumnElement[bool], bound: datetime
) -> ColumnElement[datetime]:
    return case((beyond, literal(bound, UtcDateTime)), else_=time)
