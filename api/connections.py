"""Connections of clients, as uvicorn's h11 protocol keeps them, and what it leaves open.

It waits for the head of a request for ever, so that a few thousand connections that never say anything would take all
that there are; it reads a body of a million chunks of one byte, which takes the event loop seconds; it goes on reading
what was refused; and it refuses in plain text. `uvicorn --http api.connections:Connection` uses this one. What is wrong
with a request whose head can be read is for `gate` and `middleware` to say.
"""

import asyncio
import sys
from http import HTTPStatus
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import MEDIA_TYPE, Problem, kind_of
from api.headers import EVERY_ANSWER

HEAD_PATIENCE_S = 20.0  # from the connection's beginning, or the first byte of a later request
FREE_CHUNKS = 200  # of a body; to read one takes h11 some 10 µs of the event loop
CHUNK_BYTES = 1024  # each further chunk takes so many bytes of the body
MOST_IGNORED_BYTES = 16 * 1024 * 1024  # of a body that was answered before it was whole; many read answers last
CODES = {
    HTTPStatus.REQUEST_TIMEOUT: "head_too_slow",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_in_crumbs",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "head_too_large",
}
NEXT_STEPS = {
    HTTPStatus.REQUEST_TIMEOUT: "Send the request again over a faster connection.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Send the body in larger chunks, or with a Content-Length.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Send fewer and shorter headers.",
}


class _Conversation(h11.Connection):
    """What is said on one connection; nothing more can be read once a body came in crumbs."""

    _chunks = 0
    _body_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of a request.

        Raises:
            RemoteProtocolError: There is none that could be read.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._body_bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_end
            self._body_bytes += len(event.data)
            if self._chunks > FREE_CHUNKS + self._body_bytes // CHUNK_BYTES:
                crumbs = "The body comes in too many chunks for its size."
                raise h11.RemoteProtocolError(crumbs, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return event


class Connection(H11Protocol):
    """Ends when a request's head does not come in time; refuses what is no HTTP as a problem document."""

    _head_timer: asyncio.TimerHandle | None = None
    _ignored_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there."""
        self.conn = _Conversation(h11.SERVER)
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
            self._ignored_bytes += len(data)
            if self._ignored_bytes > MOST_IGNORED_BYTES:
                self.transport.close()
                return
        else:
            self._ignored_bytes = 0
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_watching()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Say no to what h11 cannot read; it names a status in the error that is being handled."""
        error = sys.exception()
        self._refuse(HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST)), str(error or msg))

    def _watch_head(self) -> None:
        """Let time run while a head is awaited; between two requests, uvicorn's own keep-alive does."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_PATIENCE_S, self._head_is_late)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The head of the request did not come in time.")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._stop_watching()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # it has been answered, and goes on sending
            self.transport.close()
            return
        request_id = uuid4().hex
        code = CODES.get(status, status.name.lower())
        body = Problem(
            **kind_of(code),
            status=status,
            detail=detail,
            instance="",
            request_id=request_id,
            next_step=NEXT_STEPS.get(status, "Send a request of HTTP/1.1."),
            errors=[],
        )
        content = body.model_dump_json().encode()
        headers = {
            **EVERY_ANSWER,
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(len(content)),
            "X-Request-Id": request_id,
            "Connection": "close",
        }
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase)
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application still says is not sent
        self.transport.close()
