"""Domain error → RFC 9457 problem document: the only place that knows both.

Every refusal leaves the service as `application/problem+json`, also those of the framework itself.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api import refusals
from api.headers import EVERY_ANSWER
from api.hub import refusals as hub
from api.outbound import TargetRefused
from api.store import errors as store
from api.store.database import UNREACHABLE
from sentinel.errors import (
    FieldError,
    ModelInvalid,
    ModelNotFound,
    ModelTooLarge,
    ModelUnsafe,
    ModelUnsupported,
    SentinelError,
    SpecInvalid,
)
from sentinel.spec import MOST_MISTAKES, json_pointer, mistakes

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
logger = logging.getLogger(__name__)

STATUS: Mapping[type[SentinelError], HTTPStatus] = {
    SpecInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    store.JobNotFound: HTTPStatus.NOT_FOUND,
    store.AttemptNotFound: HTTPStatus.NOT_FOUND,
    store.LogNotStored: HTTPStatus.NOT_FOUND,
    store.SweepNotFound: HTTPStatus.NOT_FOUND,
    store.ArtifactNotFound: HTTPStatus.NOT_FOUND,
    store.ArtifactExpired: HTTPStatus.GONE,
    store.UploadNotFound: HTTPStatus.NOT_FOUND,
    store.UploadFileNotFound: HTTPStatus.NOT_FOUND,
    store.UploadNotReady: HTTPStatus.CONFLICT,
    store.UploadInUse: HTTPStatus.CONFLICT,
    store.UploadsFull: HTTPStatus.INSUFFICIENT_STORAGE,
    store.InvalidTransition: HTTPStatus.CONFLICT,
    store.JobNotEnded: HTTPStatus.CONFLICT,
    store.IdempotencyMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    store.DeadlineInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    store.KeyNotFound: HTTPStatus.NOT_FOUND,
    store.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    store.StoredBytesExceeded: HTTPStatus.FORBIDDEN,  # 429 would say that waiting helps
    store.WebhookNotFound: HTTPStatus.NOT_FOUND,
    store.DeliveryNotFound: HTTPStatus.NOT_FOUND,
    store.WebhookDisabled: HTTPStatus.CONFLICT,
    store.TooManyWebhooks: HTTPStatus.CONFLICT,
    TargetRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    refusals.KeyRequired: HTTPStatus.UNAUTHORIZED,
    refusals.ScopeMissing: HTTPStatus.FORBIDDEN,
    refusals.RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    refusals.PeriodInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    refusals.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    refusals.BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    refusals.HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    refusals.TargetTooLong: HTTPStatus.REQUEST_URI_TOO_LONG,
    refusals.HostNotAllowed: HTTPStatus.MISDIRECTED_REQUEST,
    refusals.OriginNotAllowed: HTTPStatus.FORBIDDEN,
    refusals.MediaTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    refusals.CursorInvalid: HTTPStatus.BAD_REQUEST,
    refusals.RangeUnsatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    refusals.NoCheckpoint: HTTPStatus.CONFLICT,
    refusals.NothingMeasured: HTTPStatus.CONFLICT,
    refusals.NothingFits: HTTPStatus.CONFLICT,
    refusals.Unready: HTTPStatus.SERVICE_UNAVAILABLE,
    refusals.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    refusals.FileMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    refusals.ArchiveRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    refusals.SpaceExhausted: HTTPStatus.INSUFFICIENT_STORAGE,
    ModelInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelNotFound: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelUnsafe: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelUnsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    hub.RepositoryNotFound: HTTPStatus.NOT_FOUND,
    hub.RevisionNotFound: HTTPStatus.NOT_FOUND,
    hub.EntryNotFound: HTTPStatus.NOT_FOUND,
}


class ProblemField(BaseModel):
    """One mistake in the request."""

    pointer: str = Field(description="RFC 6901 JSON pointer to the field; `/query/…`, `/path/…` outside the body.")
    code: str = Field(description="Stable machine-readable name of the mistake.")
    message: str = Field(description="What is wrong with the value.")


class Problem(BaseModel):
    """RFC 9457 problem details.

    A refused transition also carries `from` and `allowed`, an exceeded quota `quota`, `limit` and `used`.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URN of the kind of problem.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong this time.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable machine-readable name of the problem.")
    request_id: str = Field(description="Quote this when you report the problem.")
    next_step: str = Field(description="What to do now.")
    errors: list[ProblemField] = Field(
        description="Every mistake in the request, all at once; of very many the first 100."
    )


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Document problem responses of an operation in OpenAPI."""
    return {int(status): {"model": Problem, "description": status.phrase} for status in statuses}


def codes_of(status: HTTPStatus) -> list[str]:
    """Every code with which the service says a status."""
    return [kind.code for kind, said in STATUS.items() if said == status]


def example_of(code: str) -> dict[str, Any]:
    """The problem of a code, as OpenAPI shows it."""
    kind, status = next((kind, status) for kind, status in STATUS.items() if kind.code == code)
    return Problem(
        **kind_of(code),
        status=status,
        detail=inspect.cleandoc(kind.__doc__ or "").partition("\n")[0],
        instance="/v1/jobs",
        request_id="6f1d2c3b4a594877a0c1b2d3e4f50617",
        next_step=kind.next_step,
        errors=[],
    ).model_dump()


def kind_of(code: str) -> dict[str, str]:
    """How a code names itself in a problem document."""
    return {"type": f"urn:sentinel:problem:{code}", "title": code.replace("_", " ").capitalize(), "code": code}


def problem(
    request: Request,
    *,
    status: HTTPStatus,
    code: str,
    detail: str,
    next_step: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    **extensions: Any,  # noqa: ANN401 - RFC 9457 lets a problem type add members of any kind
) -> JSONResponse:
    """Build the one form in which the service says no."""
    body = Problem(
        **kind_of(code),
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        next_step=next_step,
        errors=[ProblemField(pointer=e.pointer, code=e.code, message=e.message) for e in errors],
        **extensions,
    )
    ids = {"X-Request-Id": request.state.request_id, "X-Trace-Id": request.state.trace_id}
    return JSONResponse(
        body.model_dump(), status_code=status, headers={**EVERY_ANSWER, **ids, **(headers or {})}, media_type=MEDIA_TYPE
    )


def of_sentinel_error(request: Request, error: SentinelError) -> JSONResponse:
    """A refusal that our own code raised."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    return problem(
        request,
        status=status,
        code=error.code,
        detail=error.message,
        next_step=error.instance_next_step,
        errors=getattr(error, "errors", ()),
        headers=_headers(error, status),
        **_extensions(error),
    )


def _headers(error: SentinelError, status: HTTPStatus) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="sentinel"'}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, store.QuotaExceeded | refusals.RateExceeded) and error.retry_after_s is not None:
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, refusals.RangeUnsatisfiable):
        return {"Content-Range": f"bytes */{error.size}"}
    return {}


def _extensions(error: SentinelError) -> dict[str, Any]:
    if isinstance(error, store.InvalidTransition):
        return {"from": error.state, "allowed": error.allowed}
    if isinstance(error, store.QuotaExceeded):
        return {"quota": error.quota, "limit": error.limit, "used": error.used}
    return {}


def _of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
    """Values that do not fit in the query, the path, a header or a body; only the spec is checked by `parse_spec`."""
    found = error.errors()[:MOST_MISTAKES]
    errors = [FieldError(pointer=_pointer(e["loc"]), code=e["type"], message=e["msg"]) for e in found]
    return problem(
        request,
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        code="request_invalid",
        detail=mistakes("request", errors),
        next_step="Correct the named fields and send the request again.",
        errors=errors,
    )


def _pointer(location: Sequence[str | int]) -> str:
    """Where a mistake is: within the body, or outside of it."""
    return json_pointer(*(location[1:] if location[0] == "body" else location))


def _of_http_exception(request: Request, error: HTTPException) -> Response:
    """What the framework refuses: unknown paths, wrong methods."""
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    return problem(
        request,
        status=status,
        code=status.name.lower(),
        detail=f"{request.method} {request.url.path}: {status.description or status.phrase}.",
        next_step="See /docs for the paths and methods of this service.",
        headers=headers,
    )


def _methods_at(request: Request) -> list[str]:
    """What a path allows; the framework itself names the methods of one of its routes only."""
    path = request.scope["path"]
    routes = [each for each in iter_route_contexts(request.app.routes) if each.methods and each.path_regex.match(path)]
    own = [route for route in routes if route.path == path]  # of `/v1/jobs/validate`, not of `/v1/jobs/{job_id}`
    return sorted({method for route in own or routes for method in route.methods or ()})


def _of_database_failure(request: Request, error: Exception) -> JSONResponse:
    logger.error("The database does not answer.", exc_info=error)
    return of_sentinel_error(request, refusals.Unready("The database does not answer."))


def _of_storage_failure(request: Request, error: Exception) -> JSONResponse:
    """Its words name the operator's hosts, so they are for the log."""
    logger.error("The storage does not answer.", exc_info=error)
    return of_sentinel_error(request, refusals.Unready("The storage does not answer."))


async def _of_hanging_up(_request: Request, _error: Exception) -> Response:
    """The client is gone in the middle of its body: nobody reads this, and it is no bug."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


def _of_bug(request: Request, _error: Exception) -> JSONResponse:
    """Anything else is ours to mend; the server logs the traceback, the user gets the request id."""
    return of_sentinel_error(request, SentinelError("The service failed while answering.", next_step=_REPORT))


_REPORT = "Report this with the request_id."


def install(app: FastAPI) -> None:
    """Make every refusal of `app` a problem document."""
    app.exception_handler(SentinelError)(of_sentinel_error)
    app.exception_handler(RequestValidationError)(_of_validation)
    app.exception_handler(HTTPException)(_of_http_exception)
    for error in UNREACHABLE:
        app.exception_handler(error)(_of_database_failure)
    app.exception_handler(store.StorageUnavailable)(_of_storage_failure)
    app.exception_handler(ClientDisconnect)(_of_hanging_up)
    app.exception_handler(Exception)(_of_bug)
