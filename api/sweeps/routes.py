"""The HTTP side of sweeps: headers, status codes and parameters; the work is in `service` and `table`."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response

from api import dispatch
from api.auth import Caller
from api.conditional import has_tag, quoted
from api.errors import responses
from api.jobs.documents import Document, request_body
from api.jobs.sources import CallersSources
from api.jobs.watching import next_version
from api.parameters import AskedTerms, Cursor, Grace, IdempotencyKey, Limit, SweepId
from api.reconciler import WAKES_PER_ROUND
from api.resources import ReadSession, Shared, WriteSession
from api.sweeps import service
from api.sweeps.schemas import Cost, Minimised, Row, SweepPage, SweepTable, SweepVerdict, SweepView
from sentinel.sweep_spec import EXAMPLE

router = APIRouter(prefix="/sweeps", tags=["sweeps"])

BODY_PROBLEMS = responses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
NOT_FOUND = responses(HTTPStatus.NOT_FOUND)
BODY = request_body("SweepSpec", example=EXAMPLE)
CANCELLED: dict[int | str, dict[str, Any]] = {
    **NOT_FOUND,
    HTTPStatus.OK: {"model": SweepView, "description": "Every job has ended already."},
}
AverageSeeds = Annotated[
    bool, Query(description="Make one row of all points that differ in `seed` alone: their mean and their spread.")
]
Most = Annotated[float | None, Query(gt=0, description="What the row may have at most.")]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Submit a sweep",
    responses=BODY_PROBLEMS,
    openapi_extra=BODY,
)
def submit(
    *,
    document: Document,
    sources: CallersSources,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    request: Request,
    response: Response,
    background: BackgroundTasks,
    terms: AskedTerms,
    idempotency_key: IdempotencyKey = None,
) -> SweepView:
    """Store a job for every combination of the grid's values, or none: all are checked before any is stored.

    The jobs are like any other, and can be shown, paused, cancelled and retried one by one; a retry belongs to the
    sweep as well.
    """
    submitted = service.submit(
        session,
        caller,
        document,
        settings=resources.settings,
        sources=sources,
        terms=terms,
        idempotency_key=idempotency_key,
        request_id=request.state.request_id,
        trace_id=request.state.trace_id,
    )
    view = submitted.shown.view
    response.headers["Location"] = view.links.self
    response.headers["ETag"] = _weak(submitted.shown)
    if submitted.already:
        response.headers["Idempotent-Replayed"] = "true"
    wakes = min(view.points, WAKES_PER_ROUND)
    background.add_task(dispatch.wake_again, resources.settings.redis_url, times=wakes)
    return view


def _weak(shown: service.Shown) -> str:
    """A tag that says nothing of the time that running jobs use, which changes by itself."""
    return f"W/{quoted(shown.tag)}"


@router.post("/validate", summary="Check a sweep without running it", responses=BODY_PROBLEMS, openapi_extra=BODY)
def validate(document: Document, sources: CallersSources, session: ReadSession, resources: Shared) -> SweepVerdict:
    """The mistakes of all points at once, each with a pointer to the value that makes it; or the points."""
    return service.validate(session, document, settings=resources.settings, sources=sources)


@router.get("", summary="List sweeps, newest first", responses=responses(HTTPStatus.BAD_REQUEST))
def page(caller: Caller, session: ReadSession, limit: Limit = 50, cursor: Cursor = None) -> SweepPage:
    """Pages never shift or repeat while sweeps are added."""
    return service.page(session, caller, limit=limit, cursor=cursor)


@router.get(
    "/{sweep_id}",
    summary="Show a sweep, or wait until one of its jobs changes",
    response_model=SweepView,
    responses={**NOT_FOUND, HTTPStatus.NOT_MODIFIED: {"description": "The sweep is as If-None-Match says."}},
)
async def show(
    *,
    sweep_id: SweepId,
    caller: Caller,
    resources: Shared,
    response: Response,
    wait: Annotated[float, Query(description="Seconds to wait for another ETag.", ge=0, le=30)] = 0,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> SweepView | Response:
    """With `wait` and If-None-Match the answer comes as soon as a job changes."""
    look = partial(service.show, caller=caller, sweep_id=sweep_id)
    shown = await next_version(resources, look, sweep_id, known=if_none_match, wait_s=wait)
    tag = _weak(shown)
    if has_tag(if_none_match, quoted(shown.tag)):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return shown.view


@router.post(
    "/{sweep_id}/cancel", status_code=HTTPStatus.ACCEPTED, summary="Cancel what has not ended", responses=CANCELLED
)
def cancel(
    *,
    sweep_id: SweepId,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    response: Response,
    grace_s: Grace = None,
) -> SweepView:
    """Every job is cancelled as by its own cancel: at once if no worker holds it, else once its worker has stopped."""
    grace_s = resources.settings.grace_s if grace_s is None else grace_s
    cancelled = service.cancel(session, caller, sweep_id, grace_s=grace_s)
    response.headers["ETag"] = _weak(cancelled.shown)
    if cancelled.already:
        response.status_code = HTTPStatus.OK
    return cancelled.shown.view


@router.get(
    "/{sweep_id}/table",
    summary="What the jobs of a sweep have measured",
    response_model=SweepTable,
    responses={**NOT_FOUND, HTTPStatus.OK: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def table(
    *,
    sweep_id: SweepId,
    caller: Caller,
    session: ReadSession,
    pareto: Annotated[
        Cost | None, Query(description="Only the rows that no other beats in loss at the same cost, cheapest first.")
    ] = None,
    average_seeds: AverageSeeds = False,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the query parameter's name
) -> SweepTable | Response:
    """One row for each point, with the values that the grid gives it; what has not been measured yet is null."""
    found = service.table(session, caller, sweep_id, average_seeds=average_seeds)
    found = found if pareto is None else found.front(pareto)
    return SweepTable(data=found.rows) if format == "json" else Response(found.as_csv(), media_type="text/csv")


@router.get(
    "/{sweep_id}/best",
    summary="The best result of a sweep within limits",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def best(
    *,
    sweep_id: SweepId,
    caller: Caller,
    session: ReadSession,
    max_parameters: Most = None,
    max_latency_ms: Most = None,
    max_kv_bytes_per_token: Most = None,
    minimise: Annotated[Minimised, Query(description="What the row has the least of.")] = "loss",
    average_seeds: AverageSeeds = False,
) -> Row:
    """The row with the least loss, or least of something else; `409` says how near the nearest comes if none fits."""
    given: dict[Cost, float | None] = {
        "parameters": max_parameters,
        "latency_ms": max_latency_ms,
        "kv_bytes_per_token": max_kv_bytes_per_token,
    }
    limits = {name: limit for name, limit in given.items() if limit is not None}
    return service.table(session, caller, sweep_id, average_seeds=average_seeds).best(limits, minimise)
