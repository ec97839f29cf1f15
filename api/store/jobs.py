"""What the API asks of jobs: accept, retry, read, list, pause, resume, cancel.

Every function works inside the caller's transaction and sees only the tenant's own rows. Knows nothing of leases.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import eq, gt, lt
from typing import NamedTuple

from sqlalchemy import case, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.store import quotas
from api.store.database import db_now
from api.store.errors import DeadlineInvalid, IdempotencyMismatch, InvalidTransition, JobNotEnded, JobNotFound
from api.store.files import keep_files, newest_checkpoint, publish_newest_state
from api.store.models import Attempt, Checkpoint, IdempotencyKey, Job, JobEvent, Json, Metric, new_id
from api.store.placement import ANY_DEVICE, Demand
from api.store.states import LEASED, TRANSITIONS, State, allowed_from, is_terminal
from api.store.transitions import add_event, lock_job, move


@dataclass(frozen=True, kw_only=True)
class Terms:
    """When and how urgently a job should run.

    Attributes:
        priority: Higher is claimed first.
        not_before: When it may be claimed first; None at once.
        deadline: When it fails if it has not ended; None never.
    """

    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None


DEFAULT_TERMS = Terms()


class NewJob(NamedTuple):
    """What sets a job apart from others that are accepted with it.

    Attributes:
        spec: The validated, resolved spec.
        name: For people; need not be unique.
        demand: What it asks of a worker.
        parent_id: The job that this one tries again.
        sweep_id: The sweep that it belongs to.
        point: What the grid of the sweep says of it.
    """

    spec: Json
    name: str | None = None
    demand: Demand = ANY_DEVICE
    parent_id: str | None = None
    sweep_id: str | None = None
    point: Json | None = None


class Accepted(NamedTuple):
    """A job that the service has promised to run; `replayed` when an earlier request made it."""

    job: Job
    replayed: bool


def accept_job(
    session: Session,
    *,
    tenant: str,
    spec: Json,
    max_attempts: int,
    name: str | None = None,
    idempotency: tuple[str, str] | None = None,
    terms: Terms = DEFAULT_TERMS,
    demand: Demand = ANY_DEVICE,
    key_id: str | None = None,
    request_id: str | None = None,
    trace_id: str | None = None,
) -> Accepted:
    """`accept_jobs` of a single one, which belongs to no sweep and tries none again."""
    return accept_jobs(
        session,
        [NewJob(spec, name, demand)],
        tenant=tenant,
        max_attempts=max_attempts,
        idempotency=idempotency,
        terms=terms,
        key_id=key_id,
        request_id=request_id,
        trace_id=trace_id,
    )


def accept_jobs(
    session: Session,
    new: Sequence[NewJob],
    *,
    tenant: str,
    max_attempts: int,
    idempotency: tuple[str, str] | None = None,
    terms: Terms = DEFAULT_TERMS,
    key_id: str | None = None,
    request_id: str | None = None,
    trace_id: str | None = None,
) -> Accepted:
    """Store jobs, their first events and one idempotency row, all or nothing; returns the first job.

    The promise holds once the transaction has committed.

    Args:
        session: A writing transaction.
        new: The jobs, at least one.
        tenant: Whose jobs they are.
        max_attempts: Tries before a lost worker fails a job.
        idempotency: (key, hash of the request); the same pair gives the same first job again.
        terms: When and how urgently they should run.
        key_id: The key that submits them, whose quotas count; None has none.
        request_id: Of the request that asked.
        trace_id: Of that request's trace.

    Raises:
        IdempotencyMismatch: The key stands for another request.
        DeadlineInvalid: The deadline has passed, or comes before `not_before`.
        QuotaExceeded: The key has all that it may have.
    """
    jobs = [
        Job(
            id=new_id("job"),
            tenant=tenant,
            key_id=key_id,
            parent_id=each.parent_id,
            sweep_id=each.sweep_id,
            point=each.point,
            name=each.name,
            spec=each.spec,
            state=State.QUEUED,
            device=each.demand.device,
            needs_bytes=each.demand.memory_bytes,
            priority=terms.priority,
            deadline=terms.deadline,
            max_attempts=max_attempts,
            request_id=request_id,
            trace_id=trace_id,
            last_seq=1,
            **({} if terms.not_before is None else {"not_before": terms.not_before}),
        )
        for each in new
    ]
    try:
        # The unique key decides between requests that race; the loser's jobs never existed.
        with session.begin_nested():
            _insert(session, jobs, idempotency)
    except IntegrityError:
        earlier = _replay(session, tenant, idempotency)
        if earlier is None:
            raise
        return Accepted(earlier, replayed=True)
    # Only now: a request that is sent again gets its jobs, whatever time and quotas say meanwhile.
    job = jobs[0]
    if job.deadline is not None and job.deadline <= max(job.created_at, job.not_before):
        raise DeadlineInvalid(job.deadline)
    quotas.check(session, jobs)
    return Accepted(job, replayed=False)


def retry_job(
    session: Session,
    tenant: str,
    job_id: str,
    *,
    from_start: bool,
    max_attempts: int,
    key_id: str | None = None,
    idempotency: tuple[str, str] | None = None,
    request_id: str | None = None,
    trace_id: str | None = None,
) -> Accepted:
    """Accept a new job with the spec of one that has ended, behind the last cycle that it kept or from the start.

    Raises:
        JobNotFound: As in `get_job`.
        JobNotEnded: The job may still come to an end of its own.
        IdempotencyMismatch, QuotaExceeded: As in `accept_job`.
    """
    parent = get_job(session, tenant, job_id)
    if not is_terminal(parent.state):
        raise JobNotEnded(job_id=job_id, state=parent.state)
    again = NewJob(
        spec=parent.spec,
        name=parent.name,
        demand=Demand(parent.device, parent.needs_bytes),
        parent_id=parent.id,
        sweep_id=parent.sweep_id,
        point=parent.point,
    )
    accepted = accept_jobs(
        session,
        [again],
        tenant=tenant,
        max_attempts=max_attempts,
        idempotency=idempotency,
        terms=Terms(priority=parent.priority),
        key_id=key_id,
        request_id=request_id,
        trace_id=trace_id,
    )
    if from_start or accepted.replayed:
        return accepted
    keep_files(session, parent.id)
    kept = newest_checkpoint(session, parent.id)
    if kept is not None:
        # Token 0 is before every claim. The files stay where the parent stored them.
        session.add(Checkpoint(job_id=accepted.job.id, cycle=kept.cycle, token=0, manifest=kept.manifest))
        accepted.job.kept_cycle = parent.kept_cycle
    return accepted


def _insert(session: Session, jobs: Sequence[Job], idempotency: tuple[str, str] | None) -> None:
    session.add_all(jobs)
    session.flush()
    for job in jobs:
        reason = "accepted" if job.parent_id is None else f"retries {job.parent_id}"
        add_event(session, job, 1, "state", {"from": None, "to": State.QUEUED, "reason": reason})
    if idempotency is not None:
        key, request_hash = idempotency
        first = jobs[0]
        session.add(IdempotencyKey(tenant=first.tenant, key=key, request_hash=request_hash, job_id=first.id))


def _replay(session: Session, tenant: str, idempotency: tuple[str, str] | None) -> Job | None:
    if idempotency is None:
        return None
    key, request_hash = idempotency
    row = session.get(IdempotencyKey, (tenant, key))
    if row is None:
        return None
    if row.request_hash != request_hash:
        raise IdempotencyMismatch(key)
    return get_job(session, tenant, row.job_id)


def get_job(session: Session, tenant: str, job_id: str) -> Job:
    """One job.

    Raises:
        JobNotFound: It does not exist, or is somebody else's: the caller cannot tell which.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, Job.tenant == tenant))
    if job is None:
        raise JobNotFound(job_id)
    return job


def versions(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """The versions of jobs of any tenant; those that do not exist are left out."""
    return dict(session.execute(select(Job.id, Job.version).where(Job.id.in_(job_ids))).all())


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list; None does not narrow."""

    state: State | None = None
    name: str | None = None
    sweep_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def list_jobs(
    session: Session, tenant: str, wanted: JobFilter, *, limit: int, after_id: str | None = None
) -> Sequence[Job]:
    """Newest first; `after_id` is the last id of the page before, so new jobs never shift a page."""
    filters = (
        (Job.state, eq, wanted.state),
        (Job.name, eq, wanted.name),
        (Job.sweep_id, eq, wanted.sweep_id),
        (Job.created_at, gt, wanted.created_after),
        (Job.created_at, lt, wanted.created_before),
        (Job.id, lt, after_id),
    )
    asked = (compare(column, value) for column, compare, value in filters if value is not None)
    return session.scalars(select(Job).where(Job.tenant == tenant, *asked).order_by(Job.id.desc()).limit(limit)).all()


def request_cancel(session: Session, tenant: str, job_id: str, *, grace_s: float) -> Job:
    """Cancel at once what no worker holds; ask the worker of a running job to stop within `grace_s`.

    Asked again while the worker stops, a shorter grace counts.

    Raises:
        JobNotFound: As in `get_job`.
        InvalidTransition: The job has ended, or is to stop as soon already.
    """
    job = _lock_own(session, tenant, job_id)
    if not cancel(session, job, grace_s=grace_s):
        raise InvalidTransition(state=job.state, to=State.CANCELLING, allowed=allowed_from(job.state))
    return job


def cancel(session: Session, job: Job, *, grace_s: float) -> bool:
    """`request_cancel` of a job that the caller has locked; whether that changes anything if it is to stop already."""
    if job.state == State.CANCELLING:
        hastened = job.grace_s is None or grace_s < job.grace_s
        if hastened:
            job.grace_s = grace_s
        return hastened
    if job.state in LEASED:
        move(session, job, State.CANCELLING, reason="cancel requested", grace_s=grace_s)
        return True
    if State.CANCELLED in TRANSITIONS[job.state] and job.kept_cycle is not None:
        publish_newest_state(session, job.id)
    move(session, job, State.CANCELLED, reason="cancel requested")
    return True


def request_pause(session: Session, tenant: str, job_id: str, *, grace_s: float) -> Job:
    """Put aside at once what no worker holds; ask the worker of a running job to stop within `grace_s`.

    Raises:
        JobNotFound: As in `get_job`.
        InvalidTransition: The job is paused, is stopping or has ended.
    """
    job = _lock_own(session, tenant, job_id)
    if job.state in LEASED:
        return move(session, job, State.PAUSING, reason="pause requested", grace_s=grace_s)
    return move(session, job, State.PAUSED, reason="pause requested")


def request_resume(session: Session, tenant: str, job_id: str) -> Job:
    """Queue a paused job again; let a job go on that its worker has not stopped yet.

    Raises:
        JobNotFound: As in `get_job`.
        InvalidTransition: The job is not paused, nor about to be.
    """
    job = _lock_own(session, tenant, job_id)
    if job.state == State.PAUSING:
        return move(session, job, State.RUNNING, reason="resume requested")
    if job.state != State.PAUSED:
        raise InvalidTransition(state=job.state, to=State.QUEUED, allowed=allowed_from(job.state))
    # It begins to wait now; the time for which it was paused is nobody's delay.
    later = case((Job.not_before > db_now(), Job.not_before), else_=db_now())
    return move(session, job, State.QUEUED, reason="resume requested", not_before=later)


def _lock_own(session: Session, tenant: str, job_id: str) -> Job:
    """`lock_job`, of the tenant's own."""
    job = lock_job(session, job_id)
    if job is None or job.tenant != tenant:
        raise JobNotFound(job_id)
    return job


def list_events(session: Session, job_id: str, *, after: int = 0, limit: int) -> Sequence[JobEvent]:
    """History in order, from the seq that follows `after`."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    return session.scalars(query.order_by(JobEvent.seq).limit(limit)).all()


def list_metrics(session: Session, job_id: str, *, name: str | None = None) -> Sequence[Metric]:
    """Every measured point once: where attempts overlap, as the latest attempt measured it."""
    newest_first = func.row_number().over(
        partition_by=(Metric.name, Metric.cycle, Metric.step), order_by=(Metric.token.desc(), Metric.id.desc())
    )
    ranked = select(Metric.id, newest_first.label("rank")).where(Metric.job_id == job_id)
    if name is not None:
        ranked = ranked.where(Metric.name == name)
    points = ranked.subquery()
    query = select(Metric).join(points, points.c.id == Metric.id).where(points.c.rank == 1)
    return session.scalars(query.order_by(Metric.name, Metric.step, Metric.id)).all()


def list_attempts(session: Session, job_id: str) -> Sequence[Attempt]:
    """Tries in order."""
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.token)).all()
