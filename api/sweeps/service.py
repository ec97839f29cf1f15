"""What the sweep routes do, inside the transaction that the edge opened. Knows no HTTP."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from api.auth import Principal
from api.errors import ProblemField
from api.jobs import documents
from api.jobs.service import demand_of, fingerprint
from api.jobs.sources import Sources
from api.paging import cut, position
from api.settings import Settings
from api.store import audit
from api.store import sweeps as store
from api.store.jobs import NewJob, Terms
from api.store.models import Sweep
from api.sweeps.schemas import SweepPage, SweepSummary, SweepVerdict, SweepView
from api.sweeps.table import Table
from sentinel.errors import FieldError, SpecInvalid
from sentinel.needs import Needs, estimate
from sentinel.prune_spec import Section
from sentinel.sweep_spec import Point, SweepSpec, check_points, parse_sweep


class Shown(NamedTuple):
    """A sweep as it is, and its version."""

    view: SweepView
    version: int

    @property
    def tag(self) -> str:
        """Names this representation, but for the time that running jobs have used."""
        return str(self.version)


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
    """Check every point of a document and promise to run them.

    Raises:
        SweepInvalid: With every mistake at once.
        IdempotencyMismatch: The key stands for another request.
        DeadlineInvalid: No job could keep the deadline.
        QuotaExceeded: The caller's key may not have so many jobs.
    """
    sweep, points = _parse(document, settings)
    # Before the first statement: no lock of the database is held while files are read.
    needs = _needs_of(points, settings, sources)
    accepted = store.accept_sweep(
        session,
        tenant=caller.tenant,
        document=sweep.model_dump(mode="json"),
        points=[_new_job(point, needed) for point, needed in zip(points, needs, strict=True)],
        max_attempts=settings.max_attempts,
        name=sweep.name,
        max_parallel=sweep.max_parallel,
        slot_seconds=None if sweep.budget is None else sweep.budget.slot_seconds,
        idempotency=(idempotency_key, fingerprint(["sweep", document], terms)) if idempotency_key else None,
        terms=terms,
        key_id=caller.key_id,
        request_id=request_id,
        trace_id=trace_id,
    )
    if not accepted.replayed:
        _check_sources(session, sweep, points, sources)
        audit.record(session, caller, "sweep.submit", accepted.sweep.id, {"jobs": len(points)})
    return Written(_show(session, accepted.sweep), already=accepted.replayed)


def _check_sources(session: Session, sweep: SweepSpec, points: Sequence[Point], sources: Sources) -> None:
    """Refuse points that name what cannot be used; what they name is kept until the transaction ends."""

    @cache
    def mistakes_in(model: Section, data: Section) -> list[FieldError]:
        named = {"model": model.model_dump(mode="json"), "data": data.model_dump(mode="json")}
        return list(sources.mistakes_in(session, named))

    check_points(sweep, points, lambda spec: mistakes_in(spec.model, spec.data))


def _parse(document: Any, settings: Settings) -> tuple[SweepSpec, list[Point]]:  # noqa: ANN401 - whatever was parsed
    return parse_sweep(document, check=partial(documents.check, roots=settings.model_roots))


def _needs_of(points: Sequence[Point], settings: Settings, sources: Sources) -> list[Needs | None]:
    """What each point takes; the headers of a model are read once."""
    shape_of = cache(partial(documents.shape_of, settings=settings, sources=sources))
    shapes = ((point.spec, shape_of(point.spec.model)) for point in points)
    return [None if shape is None else estimate(spec, shape) for spec, shape in shapes]


def _new_job(point: Point, needs: Needs | None) -> NewJob:
    spec = point.spec
    return NewJob(spec.model_dump(mode="json"), spec.name, demand_of(spec, needs), point=point.values)


def validate(
    session: Session,
    document: Any,  # noqa: ANN401 - whatever was parsed
    *,
    settings: Settings,
    sources: Sources,
) -> SweepVerdict:
    """Check a document without any effect."""
    try:
        sweep, points = _parse(document, settings)
        # Before the first statement, as in `submit`.
        known = [needs for needs in _needs_of(points, settings, sources) if needs is not None]
        _check_sources(session, sweep, points, sources)
    except SpecInvalid as invalid:
        errors = [ProblemField(pointer=e.pointer, code=e.code, message=e.message) for e in invalid.errors]
        return SweepVerdict(valid=False, errors=errors, document=None, points=[], largest=None)
    largest = max(known, key=lambda needs: needs.memory_bytes, default=None)
    values = [point.values for point in points]
    return SweepVerdict(valid=True, errors=[], document=sweep, points=values, largest=largest)


def show(session: Session, caller: Principal, sweep_id: str) -> Shown:
    """One sweep with everything known of it."""
    return _show(session, store.get_sweep(session, caller.tenant, sweep_id))


def _show(session: Session, sweep: Sweep) -> Shown:
    # The version first: what is newer than it is shown once more, and nothing is missed.
    version = store.versions(session, [sweep.id])[sweep.id]
    return Shown(SweepView.whole(sweep, store.standings(session, [sweep.id])[sweep.id]), version)


def page(session: Session, caller: Principal, *, limit: int, cursor: str | None) -> SweepPage:
    """One page of the caller's sweeps, newest first.

    Raises:
        CursorInvalid: The cursor is none of ours.
    """
    found = store.list_sweeps(session, caller.tenant, limit=limit + 1, after_id=position(cursor, prefix="swp_"))
    shown, next_cursor = cut(found, limit)
    standings = store.standings(session, [sweep.id for sweep in shown])
    return SweepPage(
        data=[SweepSummary.of(sweep, standings[sweep.id]) for sweep in shown],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


def cancel(session: Session, caller: Principal, sweep_id: str, *, grace_s: float) -> Written:
    """Ask every job to stop that has not ended, a running one within `grace_s`. `already` when all have ended."""
    cancelled = store.cancel_sweep(session, caller.tenant, sweep_id, grace_s=grace_s)
    if cancelled.changed:
        audit.record(session, caller, "sweep.cancel", sweep_id, {"jobs": cancelled.changed})
    return Written(show(session, caller, sweep_id), already=cancelled.asked == 0)


def table(session: Session, caller: Principal, sweep_id: str, *, average_seeds: bool) -> Table:
    """What its jobs have measured so far."""
    sweep = store.get_sweep(session, caller.tenant, sweep_id)
    points = store.list_points(session, sweep.id)
    return Table.of(points, sweep.document["grid"], average_seeds=average_seeds)
