"""What is asked of sweeps: accept, read, list, how they stand, cancel; and what happens when a budget is used up.

A sweep has no state of its own: everything is told from its jobs. A retry of one belongs to the sweep, and of the jobs
of a point the newest counts. Knows nothing of leases, nor of how many may run at the same time, which is in `room`.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.orm import Session

from api.store.database import db_now, seconds_between
from api.store.errors import SweepBudgetSpent, SweepNotFound
from api.store.files import publish_newest_state
from api.store.jobs import DEFAULT_TERMS, NewJob, Terms, accept_jobs, cancel
from api.store.models import Attempt, Job, Json, Sweep, new_id
from api.store.states import LEASED, UNHELD, State, is_terminal
from api.store.transitions import move


class AcceptedSweep(NamedTuple):
    """A sweep that the service has promised to run; `replayed` when an earlier request made it."""

    sweep: Sweep
    replayed: bool


def accept_sweep(
    session: Session,
    *,
    tenant: str,
    document: Json,
    points: Sequence[NewJob],
    max_attempts: int,
    name: str | None = None,
    max_parallel: int | None = None,
    slot_seconds: float | None = None,
    idempotency: tuple[str, str] | None = None,
    terms: Terms = DEFAULT_TERMS,
    key_id: str | None = None,
    request_id: str | None = None,
    trace_id: str | None = None,
) -> AcceptedSweep:
    """Store a sweep and all of its jobs. The promise holds once the transaction has committed.

    Args:
        session: A writing transaction.
        tenant: Whose sweep it is.
        document: What was submitted.
        points: Its jobs, at least one.
        max_attempts: As in `accept_jobs`.
        name: For people; need not be unique.
        max_parallel: How many of its jobs may run at the same time.
        slot_seconds: For how long they may hold slots in sum.
        idempotency: (key, hash of the request); the same pair gives the same sweep again.
        terms: When and how urgently its jobs should run.
        key_id: The key that submits it, whose quotas count; None has none.
        request_id: Of the request that asked.
        trace_id: Of that request's trace.

    Raises:
        IdempotencyMismatch: The key stands for another request.
        DeadlineInvalid: As in `accept_jobs`.
        QuotaExceeded: The key may not have so many jobs.
    """
    sweep_id = new_id("swp")
    accepted = accept_jobs(
        session,
        [point._replace(sweep_id=sweep_id) for point in points],
        tenant=tenant,
        max_attempts=max_attempts,
        idempotency=idempotency,  # the key stands for the first job, and so for the sweep that it belongs to
        terms=terms,
        key_id=key_id,
        request_id=request_id,
        trace_id=trace_id,
    )
    if accepted.replayed:
        return AcceptedSweep(session.get_one(Sweep, accepted.job.sweep_id), replayed=True)
    sweep = Sweep(
        id=sweep_id,
        tenant=tenant,
        name=name,
        document=document,
        max_parallel=max_parallel,
        slot_seconds=slot_seconds,
    )
    session.add(sweep)
    session.flush()
    return AcceptedSweep(sweep, replayed=False)


def get_sweep(session: Session, tenant: str, sweep_id: str) -> Sweep:
    """One sweep.

    Raises:
        SweepNotFound: It does not exist, or is somebody else's: the caller cannot tell which.
    """
    sweep = session.scalar(select(Sweep).where(Sweep.id == sweep_id, Sweep.tenant == tenant))
    if sweep is None:
        raise SweepNotFound(sweep_id)
    return sweep


def list_sweeps(session: Session, tenant: str, *, limit: int, after_id: str | None = None) -> Sequence[Sweep]:
    """Newest first; `after_id` is the last id of the page before."""
    query = select(Sweep).where(Sweep.tenant == tenant)
    if after_id is not None:
        query = query.where(Sweep.id < after_id)
    return session.scalars(query.order_by(Sweep.id.desc()).limit(limit)).all()


def versions(session: Session, sweep_ids: Collection[str]) -> dict[str, int]:
    """A number for each sweep that goes up whenever a job of it changes."""
    query = select(Sweep.id, func.sum(Job.version)).join(Job, Job.sweep_id == Sweep.id)
    return dict(session.execute(query.where(Sweep.id.in_(sweep_ids)).group_by(Sweep.id)).all())


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a sweep is.

    Attributes:
        counts: Number of its points by the state of their jobs.
        progress: Share that is done, 0 to 1.
        used_slot_s: Seconds for which its jobs have held slots.
    """

    counts: Mapping[State, int]
    progress: float
    used_slot_s: float


def standings(session: Session, sweep_ids: Collection[str]) -> dict[str, Standing]:
    """How far sweeps are."""
    counts: dict[str, dict[State, int]] = defaultdict(dict)
    done: dict[str, float] = defaultdict(float)
    query = select(Sweep.id, Job.state, func.count(), func.sum(Job.progress)).join(Job, Job.sweep_id == Sweep.id)
    rows = session.execute(query.where(*_current(sweep_ids)).group_by(Sweep.id, Job.state))
    for sweep_id, state, count, progress in rows:
        counts[sweep_id][state] = count
        done[sweep_id] += count if is_terminal(state) else progress
    used = used_slot_s(session, sweep_ids)
    return {
        sweep_id: Standing(
            counts=counted, progress=done[sweep_id] / sum(counted.values()), used_slot_s=used.get(sweep_id, 0.0)
        )
        for sweep_id, counted in counts.items()
    }


def used_slot_s(session: Session, sweep_ids: Collection[str]) -> dict[str, float]:
    """Seconds for which the jobs of sweeps have held slots, attempts that still run included."""
    held_s = seconds_between(Attempt.started_at, func.coalesce(Attempt.finished_at, db_now()))
    query = select(Sweep.id, func.sum(held_s)).join(Job, Job.sweep_id == Sweep.id).join(Attempt)
    return dict(session.execute(query.where(Sweep.id.in_(sweep_ids)).group_by(Sweep.id)).all())


class PointRow(NamedTuple):
    """The job of a point, and its result, once it has succeeded."""

    job_id: str
    state: State
    point: Json
    result: Json | None

    @property
    def pruned(self) -> Json | None:
        """What was measured of the pruned model."""
        return None if self.result is None else self.result.get("pruned")


def list_points(session: Session, sweep_id: str) -> list[PointRow]:
    """Every point of a sweep, with its newest job."""
    # Whole results: PostgreSQL looks into no document that has a NUL in it, and what a model writes may have one.
    query = select(Job.id, Job.state, Job.point, Job.result).where(*_current([sweep_id]))
    return [PointRow._make(row) for row in session.execute(query.order_by(Job.id))]


def _current(sweep_ids: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    """Conditions of the newest job of each point of sweeps."""
    in_sweeps = Job.sweep_id.in_(sweep_ids)
    newest_first = func.row_number().over(
        partition_by=(Job.sweep_id, cast(Job.point, Text)), order_by=(Job.created_at.desc(), Job.id.desc())
    )
    ranked = select(Job.id, newest_first.label("rank")).where(in_sweeps).subquery()
    return in_sweeps, Job.id.in_(select(ranked.c.id).where(ranked.c.rank == 1))


class Cancelled(NamedTuple):
    """How many jobs of a sweep had not ended when they were asked to stop, and for how many of them that was news."""

    asked: int
    changed: int


def cancel_sweep(session: Session, tenant: str, sweep_id: str, *, grace_s: float) -> Cancelled:
    """Ask every job of a sweep to stop that has not ended, as `request_cancel` does.

    Raises:
        SweepNotFound: As in `get_sweep`.
    """
    sweep = get_sweep(session, tenant, sweep_id)
    # In one order, so that two who cancel at once do not wait for each other.
    query = (
        select(Job).where(Job.sweep_id == sweep.id, Job.state.in_(LEASED | UNHELD)).order_by(Job.id).with_for_update()
    )
    jobs = session.scalars(query, execution_options={"populate_existing": True}).all()
    changed = [cancel(session, job, grace_s=grace_s) for job in jobs]
    return Cancelled(asked=len(changed), changed=sum(changed))


def cancel_spent(session: Session) -> None:
    """Cancel what no worker holds of sweeps that have used up their budgets.

    What runs may finish: what it has used is not thrown away.
    """
    waiting = select(Sweep.id, Sweep.slot_seconds).join(Job, Job.sweep_id == Sweep.id).where(Job.state.in_(UNHELD))
    budgets = {sweep_id: budget for sweep_id, budget in session.execute(waiting.distinct()) if budget is not None}
    used = used_slot_s(session, budgets)
    spent = {
        sweep_id: SweepBudgetSpent(used=used[sweep_id], budget=budget)
        for sweep_id, budget in budgets.items()
        if used.get(sweep_id, 0.0) >= budget
    }
    query = select(Job).where(Job.sweep_id.in_(spent), Job.state.in_(UNHELD)).with_for_update(skip_locked=True)
    for job in session.scalars(query, execution_options={"populate_existing": True}).all():
        _end_unpaid(session, job, spent[str(job.sweep_id)])


def _end_unpaid(session: Session, job: Job, spent: SweepBudgetSpent) -> None:
    publish_newest_state(session, job.id)
    move(session, job, State.CANCELLED, reason=spent.message, error=spent.as_dict())
