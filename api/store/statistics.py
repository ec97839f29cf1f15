"""How the queue is, in a few numbers. Read at every scrape, so each query is answered from an index."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.models import Job
from api.store.placement import due
from api.store.states import State


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of all tenants.

    Attributes:
        jobs: Number of jobs in each state.
        oldest_due_s: Seconds that the job has waited which might start and has waited longest, 0 if there is none; what
            its own sweep or key holds back is none.
    """

    jobs: dict[State, int]
    oldest_due_s: float


def read_statistics(session: Session) -> Statistics:
    """As they are now."""
    counted = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    oldest, now = session.scalar(select(func.min(Job.not_before)).where(*due())), session.scalar(select(db_now()))
    waited = 0.0 if oldest is None or now is None else (now - oldest).total_seconds()
    return Statistics(jobs={state: counted.get(state, 0) for state in State}, oldest_due_s=waited)
