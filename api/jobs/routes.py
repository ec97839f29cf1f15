"""The HTTP side of jobs: headers, status codes and parameters; the work is in `service` and `watching`."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from sse_starlette import EventSourceResponse

from api import dispatch
from api.auth import Caller
from api.conditional import has_tag, quoted
from api.errors import responses
from api.headers import described
from api.jobs import logs as attempt_logs
from api.jobs import service, watching
from api.jobs.documents import EXAMPLE, Document, request_body
from api.jobs.schemas import AttemptList, EventPage, JobPage, JobView, MetricSeries, Verdict
from api.jobs.sources import CallersSources
from api.parameters import ID, AskedTerms, Cursor, Grace, IdempotencyKey, JobId, Limit, Time
from api.resources import ReadSession, Shared, WriteSession
from api.store.jobs import JobFilter
from api.store.states import State

router = APIRouter(prefix="/jobs", tags=["jobs"])

LARGEST_SEQ = 2**31 - 1
LARGEST_SIZE = 2**53 - 1
END_OF_LOG = "Bytes of the log so far; as `after`, it gives what comes next."
BODY_PROBLEMS = responses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
NOT_FOUND = responses(HTTPStatus.NOT_FOUND)
TAG = described({"ETag": "Of the job as it is now; `If-None-Match` takes it."})
PROMISE: dict[int | str, dict[str, Any]] = {
    HTTPStatus.CREATED: {
        "headers": TAG
        | described(
            {"Location": "Where the job is.", "Idempotent-Replayed": "`true` if an earlier request made the job."}
        )
    }
}
ASKED: dict[str, Any] = {
    "status_code": HTTPStatus.ACCEPTED,
    "responses": {
        **responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        HTTPStatus.OK: {"model": JobView, "description": "The job is so already.", "headers": TAG},
        HTTPStatus.ACCEPTED: {"headers": TAG},
    },
}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Submit a job",
    responses=BODY_PROBLEMS | PROMISE,
    openapi_extra=request_body("Spec", example=EXAMPLE),
)
def submit(
    *,
    document: Document,
    caller: Caller,
    sources: CallersSources,
    session: WriteSession,
    resources: Shared,
    request: Request,
    response: Response,
    background: BackgroundTasks,
    terms: AskedTerms,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Store a job and promise to run it; 201 is sent only once it is committed.

    Of jobs that may start, workers take the one of the highest priority, of those the oldest.
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
    background.add_task(dispatch.wake, resources.settings.redis_url)
    return _promise(response, submitted)


def _promise(response: Response, submitted: service.Written) -> JobView:
    response.headers["Location"] = submitted.shown.view.links.self
    response.headers["ETag"] = quoted(submitted.shown.tag)
    if submitted.already:
        response.headers["Idempotent-Replayed"] = "true"
    return submitted.shown.view


@router.post(
    "/validate",
    summary="Check a spec without running it",
    responses=BODY_PROBLEMS,
    openapi_extra=request_body("Spec", example=EXAMPLE),
)
def validate(document: Document, sources: CallersSources, session: ReadSession, resources: Shared) -> Verdict:
    """All mistakes at once; or the spec with every default filled in, what it will take, and where it fits."""
    return service.validate(session, document, settings=resources.settings, sources=sources)


@router.get("", summary="List jobs, newest first", responses=responses(HTTPStatus.BAD_REQUEST))
def page(
    *,
    caller: Caller,
    session: ReadSession,
    resources: Shared,
    state: State | None = None,
    name: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    sweep: Annotated[str | None, Query(description="Only jobs of this sweep.", pattern=ID)] = None,
    created_after: Annotated[Time | None, Query(description="Only jobs submitted later.")] = None,
    created_before: Annotated[Time | None, Query(description="Only jobs submitted earlier.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobPage:
    """Pages never shift or repeat while jobs are added."""
    wanted = JobFilter(
        state=state, name=name, sweep_id=sweep, created_after=created_after, created_before=created_before
    )
    return service.page(session, caller, wanted, settings=resources.settings, limit=limit, cursor=cursor)


@router.get(
    "/{job_id}",
    summary="Show a job, or wait until it changes",
    response_model=JobView,
    responses={
        **NOT_FOUND,
        HTTPStatus.OK: {"headers": TAG},
        HTTPStatus.NOT_MODIFIED: {"description": "The job is as If-None-Match says.", "headers": TAG},
    },
)
async def show(
    *,
    job_id: JobId,
    caller: Caller,
    resources: Shared,
    response: Response,
    wait: Annotated[float, Query(description="Seconds to wait for another ETag.", ge=0, le=30)] = 0,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> JobView | Response:
    """With `wait` and If-None-Match the answer comes as soon as the job changes."""
    look = partial(service.show, caller=caller, job_id=job_id, settings=resources.settings)
    shown = await watching.next_version(resources, look, job_id, known=if_none_match, wait_s=wait)
    tag = quoted(shown.tag)
    if has_tag(if_none_match, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return shown.view


@router.post("/{job_id}/cancel", summary="Cancel a job", **ASKED)
def cancel(
    *,
    job_id: JobId,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    response: Response,
    grace_s: Grace = None,
) -> JobView:
    """A job that no worker holds is cancelled at once; a running one is `cancelling` until its worker has stopped.

    What its last kept state has can then be downloaded. Asked again, the shorter grace counts.
    """
    grace_s = resources.settings.grace_s if grace_s is None else grace_s
    return _answer(response, service.cancel(session, caller, job_id, settings=resources.settings, grace_s=grace_s))


@router.post("/{job_id}/pause", summary="Pause a job", **ASKED)
def pause(
    *,
    job_id: JobId,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    response: Response,
    grace_s: Grace = None,
) -> JobView:
    """A queued job is paused at once; a running one is `pausing` until its cycle is done or its grace is over."""
    grace_s = resources.settings.grace_s if grace_s is None else grace_s
    return _answer(response, service.pause(session, caller, job_id, settings=resources.settings, grace_s=grace_s))


@router.post("/{job_id}/resume", summary="Resume a paused job", **ASKED)
def resume(
    *,
    job_id: JobId,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    response: Response,
    background: BackgroundTasks,
) -> JobView:
    """The job is queued and goes on behind its last finished cycle."""
    resumed = _answer(response, service.resume(session, caller, job_id, settings=resources.settings))
    background.add_task(dispatch.wake, resources.settings.redis_url)
    return resumed


@router.post(
    "/{job_id}/retry",
    status_code=HTTPStatus.CREATED,
    summary="Run an ended job again, as a new job",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT) | PROMISE,
)
def retry(
    *,
    job_id: JobId,
    caller: Caller,
    sources: CallersSources,
    session: WriteSession,
    resources: Shared,
    request: Request,
    response: Response,
    background: BackgroundTasks,
    start: Annotated[
        Literal["checkpoint", "start"],
        Query(alias="from", description="From the last state that the job kept, or from the start."),
    ] = "checkpoint",
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """The new job has the same spec and names the old one as its `parent_id`."""
    retried = service.retry(
        session,
        caller,
        job_id,
        settings=resources.settings,
        sources=sources,
        from_start=start == "start",
        idempotency_key=idempotency_key,
        request_id=request.state.request_id,
        trace_id=request.state.trace_id,
    )
    background.add_task(dispatch.wake, resources.settings.redis_url)
    return _promise(response, retried)


def _answer(response: Response, written: service.Written) -> JobView:
    response.headers["ETag"] = quoted(written.shown.tag)
    if written.already:
        response.status_code = HTTPStatus.OK
    return written.shown.view


@router.get(
    "/{job_id}/events",
    summary="Read a job's history, or follow it live",
    response_model=EventPage,
    responses={
        **NOT_FOUND,
        HTTPStatus.OK: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
async def events(
    *,
    job_id: JobId,
    caller: Caller,
    resources: Shared,
    after: Annotated[int, Query(description="The last `seq` that is known.", ge=0, le=LARGEST_SEQ)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    accept: Annotated[str, Header(description="`text/event-stream` follows the job until it ends.")] = "",
    last_event_id: Annotated[int | None, Header(description="As `after`.", ge=0, le=LARGEST_SEQ)] = None,
) -> EventPage | EventSourceResponse:
    """As JSON a page; as `text/event-stream` everything past `Last-Event-ID`, live, closed by an `end` event."""
    after = after if last_event_id is None else last_event_id

    def look() -> EventPage:
        with resources.database.reading() as session:
            return service.history(session, caller, job_id, after=after, limit=limit)

    found = await to_thread.run_sync(look)
    if "text/event-stream" in accept.lower():
        events = watching.follow(resources, caller, job_id, after=after)
        return EventSourceResponse(events, shutdown_grace_period=watching.STOP_GRACE_S)
    return found


@router.get(
    "/{job_id}/metrics",
    summary="Everything a job has measured",
    response_model=MetricSeries,
    responses={**NOT_FOUND, HTTPStatus.OK: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def metrics(
    job_id: JobId,
    caller: Caller,
    session: ReadSession,
    name: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the query parameter's name
) -> MetricSeries | Response:
    """By name, each point once: where attempts overlap, as the latest measured it."""
    series = service.metrics(session, caller, job_id, name=name)
    return series if format == "json" else Response(service.as_csv(series), media_type="text/csv")


@router.get("/{job_id}/attempts", summary="Every try of a job", responses=NOT_FOUND)
def attempts(job_id: JobId, caller: Caller, session: ReadSession) -> AttemptList:
    """Which worker tried, when, and how it ended."""
    return service.attempts(session, caller, job_id)


@router.get(
    "/{job_id}/logs",
    summary="What an attempt has printed",
    response_class=PlainTextResponse,
    responses={
        **responses(HTTPStatus.NOT_FOUND, HTTPStatus.GONE),
        HTTPStatus.OK: {"headers": described({attempt_logs.END: END_OF_LOG})},
    },
)
def logs(
    *,
    job_id: JobId,
    caller: Caller,
    session: ReadSession,
    resources: Shared,
    token: Annotated[int | None, Query(description="The attempt's; the newest without.", ge=1, le=LARGEST_SEQ)] = None,
    after: Annotated[int, Query(description="Bytes that are known.", ge=0, le=LARGEST_SIZE)] = 0,
    tail: Annotated[int | None, Query(description="Only so many lines, the last.", ge=0, le=10_000)] = None,
) -> Response:
    """Some seconds behind while the attempt runs, whole once it has ended; empty before the first attempt."""
    retention_s = resources.settings.retention_s
    log = attempt_logs.find(session, caller, job_id, storage=resources.storage, token=token, retention_s=retention_s)
    chunks = log.following(after) if tail is None else iter([log.last_lines(tail, after)])
    return StreamingResponse(chunks, media_type="text/plain", headers={attempt_logs.END: str(log.size)})
