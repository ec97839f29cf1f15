"""What a worker may write to a job while it holds the lease: claim, heartbeat, report, end.

Every write is conditional on the token of the claim; zero rows mean that the lease is gone. Times come from the
database's clock alone. Knows nothing of processes, queues or HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import LeaseLost
from api.store.files import NewArtifact, newest_checkpoint, publish, publish_newest_state
from api.store.models import ApiKey, Attempt, Checkpoint, Job, Json, ManifestFile, Metric, Outcome
from api.store.placement import ANYTHING, Offer, due, fits
from api.store.quotas import take_room
from api.store.room import reserve
from api.store.states import LEASED, State
from api.store.transitions import add_event, lock_job, move
from sentinel.events import MessageLogged, MetricRecorded, NeedsEstimated, PhaseStarted, Progressed

Recordable = PhaseStarted | Progressed | MetricRecorded | MessageLogged | NeedsEstimated
"""Events that are recorded as they come; the others are acts of their own: `record_checkpoint`, `succeed`, `fail`."""


class Command(StrEnum):
    """What a worker should do with its job."""

    CONTINUE = "continue"
    PAUSE = "pause"
    CANCEL = "cancel"
    GIVE_UP = "give_up"


class Order(NamedTuple):
    """What the service wants of a worker, told in the reply to its heartbeat: the job may go on for `grace_s`."""

    command: Command
    grace_s: float


COMMANDS = {State.RUNNING: Command.CONTINUE, State.PAUSING: Command.PAUSE, State.CANCELLING: Command.CANCEL}
"""What a worker is told, by the state of its job."""

# Where a job goes that its worker leaves unfinished while something was asked of it.
ASKED_FOR = {State.PAUSING: State.PAUSED, State.CANCELLING: State.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's right to write one job.

    Attributes:
        job_id: The job.
        token: The fencing number of this claim.
        attempt: Number of this try, from 1.
        waited_s: Seconds since it might have been claimed.
        needs_bytes: Memory that it will take, None while that is not known.
        spec: The concrete spec.
        resume: Files of the newest resume state; null starts from the beginning.
        request_id: Of the request that made the job.
        trace_id: Of that request's trace; null for a job of an earlier version.
    """

    job_id: str
    token: int
    attempt: int
    waited_s: float
    needs_bytes: int | None
    spec: Json
    resume: tuple[ManifestFile, ...] | None
    request_id: str | None = None
    trace_id: str | None = None


def claim_next(session: Session, *, worker: str, lease_s: float, offer: Offer = ANYTHING) -> Claim | None:
    """Take the best due job that fits the slot: highest priority, then oldest. None when there is none."""
    job = _best(session, offer)
    if job is None:
        return None
    job = move(
        session,
        job,
        State.RUNNING,
        reason=f"claimed by {worker}",
        attempt=Job.attempt + 1,
        lease_token=Job.lease_token + 1,
        lease_owner=worker,
        lease_expires_at=db_now(lease_s),
        started_at=func.coalesce(Job.started_at, db_now()),
    )
    session.add(Attempt(job_id=job.id, token=job.lease_token, number=job.attempt, worker=worker))
    kept = newest_checkpoint(session, job.id)
    resume = None if kept is None else tuple(kept.manifest)
    waited_s = (job.updated_at - job.not_before).total_seconds()
    return Claim(
        job_id=job.id,
        token=job.lease_token,
        attempt=job.attempt,
        waited_s=waited_s,
        needs_bytes=job.needs_bytes,
        spec=job.spec,
        resume=resume,
        request_id=job.request_id,
        trace_id=job.trace_id,
    )


def _best(session: Session, offer: Offer) -> Job | None:
    """The job to claim, locked, with the room that its sweep and its key have for it."""
    passed_over: list[str] = []
    while True:
        query = (
            select(Job, ApiKey)
            .outerjoin(ApiKey, ApiKey.id == Job.key_id)
            .where(*due(), *fits(offer), or_(Job.sweep_id.is_(None), Job.sweep_id.not_in(passed_over)))
            .order_by(Job.priority.desc(), Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=Job)
        )
        found = session.execute(query, execution_options={"populate_existing": True}).first()
        if found is None:
            return None
        job, key = found
        # The sweep first, whose lock nobody waits for: who waits for a key's must not hold another key's.
        if job.sweep_id is not None and not reserve(session, job.sweep_id):
            passed_over.append(job.sweep_id)
        # Another worker may have taken the room since; then the next look leaves that key out.
        elif key is None or key.max_running_jobs is None or take_room(session, key):
            return job


def heartbeat(session: Session, claim: Claim, lease_s: float) -> Order:
    """Keep the lease for `lease_s` more seconds and hear what the service wants.

    Raises:
        LeaseLost: Another claim or the reconciler has taken the job.
    """
    job = _update_leased(session, claim, lease_expires_at=db_now(lease_s))
    command = Command.GIVE_UP if _missed_deadline(job, lease_s) else COMMANDS[job.state]
    return Order(command, grace_s=job.grace_s or 0.0)


def _missed_deadline(job: Job, lease_s: float) -> bool:
    """By the database's clock, which the lease's new end tells."""
    if job.deadline is None or job.lease_expires_at is None:
        return False
    return job.deadline <= job.lease_expires_at - timedelta(seconds=lease_s)


def record_events(session: Session, claim: Claim, events: Sequence[Recordable]) -> None:
    """Append events in their order, and update what they say about the job.

    Progress is kept as the latest value only; every other event becomes a line of history, a metric also a row.

    Raises:
        LeaseLost: As in `heartbeat`; then nothing of `events` is kept.
    """
    lines = [event for event in events if not isinstance(event, Progressed)]
    shown: dict[str, Any] = {}
    for event in events:
        shown |= _shown(event)
    job = _update_leased(
        session, claim, last_seq=Job.last_seq + len(lines), version=Job.version + 1, updated_at=db_now(), **shown
    )
    for seq, event in enumerate(lines, start=job.last_seq - len(lines) + 1):
        add_event(session, job, seq, event.type, event.model_dump(mode="json", exclude={"type"}))
    points = [event.model_dump(exclude={"type"}) for event in lines if isinstance(event, MetricRecorded)]
    session.add_all(Metric(job_id=claim.job_id, token=claim.token, **point) for point in points)


def _shown(event: Recordable) -> dict[str, Any]:
    """Columns of the job that an event changes."""
    match event:
        case PhaseStarted():
            return {"phase": event.phase.value} | ({} if event.cycle is None else {"cycle": event.cycle})
        case Progressed():
            return {"progress": event.fraction}
        case NeedsEstimated():
            return {"needs_bytes": event.memory_bytes}
        case MetricRecorded() | MessageLogged():
            return {}


def record_checkpoint(
    session: Session, claim: Claim, cycle: int, manifest: Sequence[ManifestFile], *, step: int | None = None
) -> None:
    """Make a resume state count; its files must already lie verified in the storage.

    Args:
        session: A writing transaction.
        claim: The attempt that wrote it.
        cycle: How many cycles are finished.
        manifest: Its files; they take the place of those of an earlier state of the attempt after the same cycle.
        step: How many steps the healing of the next one has done, if any.

    Raises:
        LeaseLost: As in `heartbeat`.
    """
    now = {"last_seq": Job.last_seq + 1, "version": Job.version + 1, "updated_at": db_now()}
    job = _update_leased(session, claim, kept_cycle=cycle, **now)
    add_event(session, job, job.last_seq, "checkpoint", {"cycle": cycle} | ({} if step is None else {"step": step}))
    session.merge(Checkpoint(job_id=claim.job_id, cycle=cycle, token=claim.token, manifest=list(manifest)))


def succeed(session: Session, claim: Claim, result: Json, artifacts: Sequence[NewArtifact]) -> None:
    """Publish the result and its artifacts and end the job, all or nothing.

    Raises:
        LeaseLost: As in `heartbeat`; nothing is published.
    """
    job = _leased(session, claim)
    publish(session, claim.job_id, claim.token, artifacts)
    leave(session, job, State.SUCCEEDED, Outcome.SUCCEEDED, reason="done", result=result, progress=1.0)


def fail(session: Session, claim: Claim, error: Json, *, retry: bool, backoff_s: float = 0.0) -> State:
    """End the attempt with an error; with `retry` and attempts left, queue the job again after `backoff_s`.

    Args:
        session: A writing transaction.
        claim: The attempt that failed.
        error: `SentinelError.as_dict()`.
        retry: Whether another try could end better.
        backoff_s: Seconds before the job can be claimed again.

    Returns:
        The state that the job is in now; one that is being paused or cancelled is not tried again by itself.

    Raises:
        LeaseLost: As in `heartbeat`.
    """
    job = _leased(session, claim)
    to = after_failure(job) if retry else State.FAILED
    reason = str(error["message"])
    return leave(session, job, to, Outcome.FAILED, reason=reason, error=error, not_before=db_now(backoff_s)).state


def finish_cancel(session: Session, claim: Claim) -> None:
    """End a job whose cancel was asked for, once its worker has stopped.

    Raises:
        InvalidTransition: Nobody asked for a cancel.
        LeaseLost: As in `heartbeat`.
    """
    leave(session, _leased(session, claim), State.CANCELLED, Outcome.CANCELLED, reason="stopped")


def release(session: Session, claim: Claim, reason: str) -> None:
    """Give the job back unharmed; the attempt is not charged.

    It is paused or cancelled if that was asked for, else queued for another worker to go on with at once.

    Raises:
        LeaseLost: As in `heartbeat`.
    """
    job = _leased(session, claim)
    to = ASKED_FOR.get(job.state, State.QUEUED)
    leave(session, job, to, Outcome.RELEASED, reason=reason, attempt=Job.attempt - 1, not_before=db_now())


def after_failure(job: Job) -> State:
    """Where an attempt that could be tried again leaves its job."""
    if job.state == State.CANCELLING:
        return State.CANCELLED
    if job.attempt >= job.max_attempts:
        return State.FAILED
    return ASKED_FOR.get(job.state, State.QUEUED)


def leave(
    session: Session, job: Job, to: State, outcome: Outcome, *, reason: str, error: Json | None = None, **values: object
) -> Job:
    """End the job's current attempt and its lease, and take the job to `to`."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.token == job.lease_token)
        .values(finished_at=db_now(), outcome=outcome, error=error)
    )
    if to == State.FAILED:
        values["error"] = error
    if to in (State.FAILED, State.CANCELLED):
        publish_newest_state(session, job.id)
    return move(session, job, to, reason=reason, phase=None, lease_owner=None, lease_expires_at=None, **values)


def _leased(session: Session, claim: Claim) -> Job:
    """The job, locked, if the claim still holds its lease."""
    job = lock_job(session, claim.job_id)
    if job is None or job.lease_token != claim.token or job.state not in LEASED:
        raise LeaseLost(job_id=claim.job_id, token=claim.token)
    return job


def _update_leased(session: Session, claim: Claim, **values: object) -> Job:
    """Change columns other than the state, if the claim still holds the lease."""
    job = session.scalar(
        update(Job)
        .where(Job.id == claim.job_id, Job.lease_token == claim.token, Job.state.in_(LEASED))
        .values(**values)
        .returning(Job),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if job is None:
        raise LeaseLost(job_id=claim.job_id, token=claim.token)
    return job
