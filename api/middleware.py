"""What happens around every request: ids of it and its trace, limits on its body, one line of access log.

Plain ASGI, so that streams pass through untouched. Knows no route.
"""

import logging
import re
import time
from contextvars import copy_context
from uuid import uuid4

import anyio
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import tracing
from api.errors import of_sentinel_error
from api.headers import complete
from api.refusals import BodyTooLarge, BodyTooSlow
from sentinel.errors import SentinelError
from sentinel.utils import logs

PATIENCE_S = 20.0  # for a body of any size, and more for each byte that has come
SLOWEST_BYTES_PER_S = 2000
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
                headers.update(said)
                complete(headers)
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

    A body that comes too slowly is refused as well, so that nobody can hold a request open by dripping.

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
            return await of_sentinel_error(Request(scope), _too_large(limit))(scope, receive, send)
        body = _Body(receive, max_bytes=limit)

        async def send_refusal_first(message: Message) -> None:
            # Whatever the application made of a body that broke off, this is what was wrong with it.
            if body.refusal is None:
                await send(message)
            elif message["type"] == "http.response.start":
                await of_sentinel_error(Request(scope), body.refusal)(scope, receive, send)

        return await self.app(scope, body.receive, send_refusal_first)


class _Body:
    """A request body on its way in."""

    def __init__(self, receive: Receive, *, max_bytes: int) -> None:
        self.refusal: SentinelError | None = None
        self._receive = receive
        self._max_bytes = max_bytes
        self._size = 0
        self._began = time.monotonic()
        self._whole = False

    async def receive(self) -> Message:
        """The next message; once the body is whole, whatever the server has to say, whenever that is."""
        if self._whole:
            return await self._receive()
        patience_s = self._began + PATIENCE_S + self._size / SLOWEST_BYTES_PER_S - time.monotonic()
        message: Message | None = None
        with anyio.move_on_after(patience_s):
            message = await self._receive()
        if message is None:
            self.refusal = BodyTooSlow(f"Of the request body {self._size} bytes had come when the time was over.")
            raise self.refusal
        self._size += len(message.get("body", b""))
        if self._size > self._max_bytes:
            self.refusal = _too_large(self._max_bytes)
            raise self.refusal
        self._whole = not message.get("more_body", False)
        return message


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is longer than {max_bytes} bytes.")
