"""What the job routes do, inside the transaction that the edge opened. Knows no HTTP."""

import csv
import io
import zlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from api.auth import Principal
from api.errors import ProblemField
from api.jobs import documents
from api.jobs.schemas import (
    AttemptList,
    AttemptView,
    EventPage,
    EventView,
    JobPage,
    JobSummary,
    JobView,
    MetricPoint,
    MetricSeries,
    Verdict,
)
from api.jobs.sources import Sources
from api.paging import cut, position
from api.settings import Settings
from api.store import audit
from api.store import jobs as store
from api.store.errors import InvalidTransition
from api.store.files import list_artifacts
from api.store.jobs import JobFilter, Terms
from api.store.models import Job
from api.store.placement import Demand, Placement
from api.store.states import State
from sentinel.errors import SpecInvalid
from sentinel.needs import Needs
from sentinel.spec import Spec


class Shown(NamedTuple):
    """A job as it is, and its version."""

    view: JobView
    version: int

    @property
    def tag(self) -> str:
        """Names this representation: what a job waits for, and that its files expire, make no new version."""
        reason = self.view.queue_reason
        if reason is not None:
            return f"{self.version}.{zlib.crc32(reason.encode()):08x}"
        expired = any(artifact.expired_at is not None for artifact in self.view.artifacts)
        return f"{self.version}.expired" if expired else str(self.version)


class Written(NamedTuple):
    """What a request did; `already` when an earlier one had done it."""

    shown: Shown
    already: bool


def submit(
    session: Session,
    caller: Principal,
    document: Any,  # noqa: ANN401 - whatever was parsed
    *,
    settings: Settings,
    sources: Sources,
    terms: Terms,
    idempotency_key: str | None,
    request_id: str,
    trace_id: str,
) -> Written:
    """Check a document and promise to run it.

    Raises:
        SpecInvalid: With every mistake at once.
        IdempotencyMismatch: The key stands for another request.
        DeadlineInvalid: No job could keep the deadline.
        QuotaExceeded: The caller's key has all that it may have.
    """
    spec = documents.check(document, roots=settings.model_roots)
    # Before the first statement: no lock of the database is held while files are read.
    demand = demand_of(spec, documents.needs_of(spec, settings=settings, sources=sources))
    accepted = store.accept_job(
        session,
        tenant=caller.tenant,
        spec=spec.model_dump(mode="json"),
        max_attempts=settings.max_attempts,
        name=spec.name,
        idempotency=(idempotency_key, fingerprint(document, terms)) if idempotency_key else None,
        terms=terms,
        demand=demand,
        key_id=caller.key_id,
        request_id=request_id,
        trace_id=trace_id,
    )
    return _accepted(session, caller, "job.submit", accepted, settings=settings, sources=sources)


def retry(
    session: Session,
    caller: Principal,
    job_id: str,
    *,
    settings: Settings,
    sources: Sources,
    from_start: bool,
    idempotency_key: str | None,
    request_id: str,
    trace_id: str,
) -> Written:
    """Promise to run an ended job's spec again, as a new job.

    Raises:
        JobNotEnded: It may still come to an end of its own.
        IdempotencyMismatch: The key stands for another request.
        QuotaExceeded: The caller's key has all that it may have.
        SpecInvalid: The spec names an upload or a job that cannot be used any more.
    """
    request = documents.fingerprint(["retry", job_id, from_start])
    accepted = store.retry_job(
        session,
        caller.tenant,
        job_id,
        from_start=from_start,
        max_attempts=settings.max_attempts,
        key_id=caller.key_id,
        idempotency=(idempotency_key, request) if idempotency_key else None,
        request_id=request_id,
        trace_id=trace_id,
    )
    return _accepted(session, caller, "job.retry", accepted, settings=settings, sources=sources)


def _accepted(
    session: Session,
    caller: Principal,
    action: str,
    accepted: store.Accepted,
    *,
    settings: Settings,
    sources: Sources,
) -> Written:
    if not accepted.replayed:
        sources.check(session, accepted.job.spec)
        audit.record(session, caller, action, accepted.job.id)
    return Written(_show(session, accepted.job, settings), already=accepted.replayed)


def fingerprint(document: object, terms: Terms) -> str:
    """Of the whole request; its terms count only where they were said."""
    said = [terms.priority, *(time and time.timestamp() for time in (terms.not_before, terms.deadline))]
    return documents.fingerprint([document, said] if any(said) else document)


def validate(
    session: Session,
    document: Any,  # noqa: ANN401 - whatever was parsed
    *,
    settings: Settings,
    sources: Sources,
) -> Verdict:
    """Check a document without any effect."""
    try:
        spec = documents.check(document, roots=settings.model_roots)
        # Before the first statement, as in `submit`.
        needs = documents.needs_of(spec, settings=settings, sources=sources)
        sources.check(session, spec.model_dump(mode="json"))
    except SpecInvalid as invalid:
        errors = [ProblemField(pointer=e.pointer, code=e.code, message=e.message) for e in invalid.errors]
        return Verdict(valid=False, errors=errors, resolved_spec=None, estimate=None, queue_reason=None)
    obstacle = _placement(session, settings).obstacle(demand_of(spec, needs))
    return Verdict(valid=True, errors=[], resolved_spec=spec, estimate=needs, queue_reason=obstacle)


def demand_of(spec: Spec, needs: Needs | None) -> Demand:
    """What a job asks of a worker."""
    return Demand(spec.device, None if needs is None else needs.memory_bytes)


def show(session: Session, caller: Principal, job_id: str, *, settings: Settings) -> Shown:
    """One job with everything known of it."""
    return _show(session, store.get_job(session, caller.tenant, job_id), settings)


def _show(session: Session, job: Job, settings: Settings) -> Shown:
    view = JobView.whole(job, _placement(session, settings), list_artifacts(session, job.id))
    return Shown(view, job.version)


def _placement(session: Session, settings: Settings) -> Placement:
    return Placement(session, silent_s=settings.lease_s)


def page(
    session: Session, caller: Principal, wanted: JobFilter, *, settings: Settings, limit: int, cursor: str | None
) -> JobPage:
    """One page of the caller's jobs, newest first.

    Raises:
        CursorInvalid: The cursor is none of ours.
    """
    after_id = position(cursor, prefix="job_")
    jobs = store.list_jobs(session, caller.tenant, wanted, limit=limit + 1, after_id=after_id)
    shown, next_cursor = cut(jobs, limit)
    placement = _placement(session, settings)
    return JobPage(
        data=[JobSummary.of(job, placement) for job in shown],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


def cancel(session: Session, caller: Principal, job_id: str, *, settings: Settings, grace_s: float) -> Written:
    """End a job without a result, a running one within `grace_s`. `already` when it had been cancelled before.

    Raises:
        InvalidTransition: The job has succeeded or failed.
    """
    request = partial(store.request_cancel, grace_s=grace_s)
    under_way, done = {State.CANCELLING}, {State.CANCELLED}
    return _ask(session, caller, job_id, request, settings, action="job.cancel", under_way=under_way, done=done)


def pause(session: Session, caller: Principal, job_id: str, *, settings: Settings, grace_s: float) -> Written:
    """Put a job aside, a running one within `grace_s`. `already` when it is paused.

    Raises:
        InvalidTransition: The job is being cancelled or has ended.
    """
    request = partial(store.request_pause, grace_s=grace_s)
    under_way, done = {State.PAUSING}, {State.PAUSED}
    return _ask(session, caller, job_id, request, settings, action="job.pause", under_way=under_way, done=done)


def resume(session: Session, caller: Principal, job_id: str, *, settings: Settings) -> Written:
    """Let a paused job go on. `already` when it is queued or running.

    Raises:
        InvalidTransition: The job is being cancelled or has ended.
    """
    done = {State.QUEUED, State.RUNNING}
    request = store.request_resume
    return _ask(session, caller, job_id, request, settings, action="job.resume", under_way=set(), done=done)


def _ask(
    session: Session,
    caller: Principal,
    job_id: str,
    request: Callable[[Session, str, str], Job],
    settings: Settings,
    *,
    action: str,
    under_way: AbstractSet[State],
    done: AbstractSet[State],
) -> Written:
    """Ask a job for a step; asking again changes nothing."""
    try:
        job = request(session, caller.tenant, job_id)
    except InvalidTransition as refused:
        if refused.state not in under_way | done:
            raise
        job = store.get_job(session, caller.tenant, job_id)
        return Written(_show(session, job, settings), already=job.state in done)
    audit.record(session, caller, action, job_id)
    return Written(_show(session, job, settings), already=False)


def history(session: Session, caller: Principal, job_id: str, *, after: int, limit: int) -> EventPage:
    """A stretch of a job's history."""
    job = store.get_job(session, caller.tenant, job_id)
    events = store.list_events(session, job.id, after=after, limit=limit + 1)
    return EventPage(data=[EventView.of(event) for event in events[:limit]], has_more=len(events) > limit)


def metrics(session: Session, caller: Principal, job_id: str, *, name: str | None) -> MetricSeries:
    """Everything measured so far, by name."""
    job = store.get_job(session, caller.tenant, job_id)
    series: dict[str, list[MetricPoint]] = {}
    for metric in store.list_metrics(session, job.id, name=name):
        series.setdefault(metric.name, []).append(MetricPoint.of(metric))
    return MetricSeries(series)


def as_csv(series: MetricSeries) -> str:
    """One line a point, under a header."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["name", *MetricPoint.model_fields])
    for name, points in series.root.items():
        lines.writerows([name, *point.model_dump(mode="json").values()] for point in points)
    return text.getvalue()


def attempts(session: Session, caller: Principal, job_id: str) -> AttemptList:
    """Every try of a job."""
    job = store.get_job(session, caller.tenant, job_id)
    return AttemptList(data=[AttemptView.of(attempt) for attempt in store.list_attempts(session, job.id)])
