"""What happens around every request: a request id, a trace id, a limit on the body, one line of access log.

Plain ASGI, so that streams pass through untouched. Knows no route.
"""

import logging
import re
import time
from contextvars import copy_context
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import tracing
from api.errors import of_sentinel_error
from api.refusals import BodyTooLarge
from sentinel.utils import logs

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
access_log = logging.getLogger("api.access")


class RequestContext:
    """Gives every request an id and a trace, says both in the response and in every log line, and logs how it went."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, trace_id = _request_id(scope), tracing.trace_id_of(Headers(scope=scope))
        said: dict[str, str] = {}  # headers that the answer is to have, whatever it is
        scope.setdefault("state", {}).update(request_id=request_id, trace_id=trace_id, headers=said)
        # The server runs each request in a task of its own, so its line about a bug carries this too.
        logs.bind(request_id=request_id, trace_id=trace_id)
        started = time.perf_counter()
        status = 500  # what the server answers when the application never does

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Trace-Id"] = trace_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.update(said)
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        finally:
            copy_context().run(_log, scope, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    """The caller's id if it is sane, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if SANE_REQUEST_ID.fullmatch(given) else uuid4().hex


def _log(scope: Scope, status: int, seconds: float) -> None:
    """The path alone: a query or a header may hold what is nobody's business."""
    logs.bind(method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 1))
    access_log.info("answered")


class BodyLimit:
    """Refuses bodies longer than allowed: by their declared length at once, else when they grow too long.

    Args:
        max_bytes: For documents, which are held in memory.
        files: Paths under which bodies are files.
        max_file_bytes: For those.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, files: re.Pattern[str], max_file_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.files = files
        self.max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = self.max_file_bytes if self.files.fullmatch(scope["path"]) else self.max_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            refusal = of_sentinel_error(Request(scope), _too_large(limit))
            return await refusal(scope, receive, send)
        return await self.app(scope, _counted(receive, limit), send)


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def receive_counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return receive_counted


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is longer than {limit} bytes.")
