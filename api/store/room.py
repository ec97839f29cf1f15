"""How many jobs of a sweep run at the same time, and how a claim keeps to that.

The limit is a condition of the query for the next job, and a lock under which a claim asks once more: two that are made
at the same time both see the last place free.
"""

from functools import cache

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session, aliased

from api.store.models import Job, Sweep
from api.store.states import LEASED


def has_room() -> ColumnElement[bool]:
    """Condition of a job whose sweep lets one more run; of a job without a sweep always true."""
    return or_(Job.sweep_id.is_(None), Job.sweep_id.not_in(_full()))


def full_sweeps(session: Session) -> dict[str, int]:
    """Sweeps as many of whose jobs run as may at the same time, and how many that is."""
    return dict(session.execute(_full().add_columns(Sweep.max_parallel)).all())


def reserve(session: Session, sweep_id: str) -> bool:
    """Whether one more job of the sweep may run; nobody else can take its place until the transaction ends.

    While another claim is being made for the sweep the answer is no, so that claims never wait for each other.
    """
    limited = Sweep.id == sweep_id, Sweep.max_parallel.is_not(None)
    if session.scalar(select(Sweep.id).where(*limited)) is None:
        return True
    if session.scalar(select(Sweep.id).where(*limited).with_for_update(skip_locked=True)) is None:
        return False
    # In a statement of its own: it sees what was committed before the lock was had.
    return session.scalar(select(Sweep.id).where(*limited, Sweep.id.not_in(_full()))) is not None


@cache  # to build it takes longer than to ask it, and each look at a queued job does
def _full() -> Select[str]:
    running = aliased(Job)
    return (
        select(Sweep.id)
        .join(running, running.sweep_id == Sweep.id)
        .where(Sweep.max_parallel.is_not(None), running.state.in_(LEASED))
        .group_by(Sweep.id, Sweep.max_parallel)
        .having(func.count() >= Sweep.max_parallel)
    )
