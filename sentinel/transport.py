"""How requests to the service meet trouble: what is tried again, for how long, and what counts as a refusal.

Knows no endpoint. Nearly every request may be sent twice without harm, as it reads, says which state it wants, or
carries an `Idempotency-Key`; so broken connections and a busy service are tried again alike. The others, which make
secrets, are sent again only if the service cannot have done them. Written once for both clients: how they wait is the
difference between them.
"""

import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from sentinel.endpoint import known_by
from sentinel.errors import Fault, SentinelError
from sentinel.replies import Page, Problem

T = TypeVar("T")
Reply = TypeVar("Reply", bound=BaseModel)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 8.0
BUSY = frozenset({429, 502, 503, 504})


class ServiceUnreachable(SentinelError):
    """No answer came within the client's patience."""

    code = "service_unreachable"
    fault = Fault.RESOURCE
    next_step = "Check the URL and that the service runs; a job that was accepted goes on without the client."


class ServiceRefused(SentinelError):
    """The service said no.

    Attributes:
        problem: Its problem document, with every mistake of the request.
    """

    code = "service_refused"
    fault = Fault.USER

    def __init__(self, problem: Problem) -> None:
        mistakes = "".join(f"\n  {error.pointer}: {error.message}" for error in problem.errors)
        super().__init__(f"{problem.detail}{mistakes}", next_step=problem.next_step)
        self.problem = problem


class AnswerNotUnderstood(SentinelError):
    """The service answers in a form that this client does not know."""

    code = "answer_not_understood"
    next_step = "Check that the URL is the service's, and that client and service are of versions that go together."


class OutcomeUnknown(SentinelError):
    """The connection broke behind a request that must not be sent twice."""

    code = "outcome_unknown"
    fault = Fault.RESOURCE
    next_step = "Look what there is now, and ask again if it was not done."


class Busy(Exception):
    """The service is there but cannot answer now; `after_s` is what its Retry-After asks for."""

    def __init__(self, problem: Problem, retry_after: str) -> None:
        super().__init__(f"{problem.detail} (HTTP {problem.status})")
        self.problem = problem
        self.refused = problem.status == httpx.codes.TOO_MANY_REQUESTS
        self.after_s = _seconds(retry_after)


def _seconds(retry_after: str) -> float:
    """From now, as the header says it: seconds or a date (RFC 9110 §10.2.3); 0 if it says nothing sensible."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return 0.0


TROUBLE = (httpx.TransportError, Busy)
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Waiting(Protocol):
    """How a client passes time."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do what blocks, like writing to a disk."""
        ...


@dataclass(frozen=True, kw_only=True)
class Session:
    """One service, one key, and how long to be patient.

    Attributes:
        http: Sends the requests, with the key.
        waiting: How time passes.
        patience_s: How long a request is tried again while the service does not answer.
    """

    http: httpx.AsyncClient
    waiting: Waiting
    patience_s: float

    async def read(self, reply: type[Reply], path: str, **query: object) -> Reply:
        """What is there; parameters that are None are left out."""
        return understood(reply, await self.request("GET", path, params=_said(query)))

    async def ask(self, reply: type[Reply], path: str, *, json: object = None, **query: object) -> Reply:
        """What is there once the service has done what may be asked for twice."""
        return understood(reply, await self.request("POST", path, json=json, params=_said(query)))

    async def make(
        self, reply: type[Reply], path: str, *, key: str | None, json: object = None, **query: object
    ) -> Reply:
        """What was made: one thing for each idempotency key, of which None makes a new one.

        Raises:
            IdempotencyKeyInvalid: No request can be known by this key.
        """
        headers = known_by(uuid.uuid4().hex if key is None else key)
        return understood(reply, await self.request("POST", path, json=json, params=_said(query), headers=headers))

    async def make_once(self, reply: type[Reply], path: str, *, json: object = None, **query: object) -> Reply:
        """What was made by a request that must not be done twice.

        Raises:
            OutcomeUnknown: It was sent, and no answer came.
        """
        return understood(reply, await self.request("POST", path, once=True, json=json, params=_said(query)))

    async def change(self, reply: type[Reply], path: str, changes: Mapping[str, object]) -> Reply:
        """What is there once the service has changed what is named."""
        return understood(reply, await self.request("PATCH", path, json=to_jsonable_python(changes)))

    async def remove(self, path: str) -> None:
        """Have something deleted. Where an answer was lost, not to find it any more will do."""
        retry = Retry(self)
        while True:
            try:
                await check(await self.http.delete(path))
            except TROUBLE as error:
                await retry.pause(error)
            except ServiceRefused as refused:
                if refused.problem.status == httpx.codes.NOT_FOUND and retry.began:
                    return
                raise
            else:
                return

    async def pages(self, reply: type[Page[T]], path: str, **query: object) -> AsyncGenerator[T, None]:
        """Everything that a list has, fetched page by page."""
        cursor: str | None = None
        while True:
            page = await self.read(reply, path, **query, cursor=cursor)
            for entry in page.data:
                yield entry
            if not page.has_more:
                return
            cursor = page.next_cursor

    async def request(
        self,
        method: str,
        path: str,
        *,
        once: bool = False,
        **options: Any,  # noqa: ANN401 - httpx's own
    ) -> httpx.Response:
        """The answer of a request that may be sent twice without harm, unless `once`.

        Raises:
            ServiceRefused: The service says no.
            ServiceUnreachable: Nothing answers within the client's patience.
            OutcomeUnknown: A request that must not be done twice may have been done.
        """
        retry = Retry(self)
        while True:
            try:
                return await check(await self.http.request(method, path, **options))
            except TROUBLE as error:
                if once and not _was_not_done(error):
                    raise OutcomeUnknown(f"Nobody knows whether this was done: {method} {path}.") from error
                await retry.pause(error)


def _was_not_done(error: Exception) -> bool:
    return error.refused if isinstance(error, Busy) else isinstance(error, UNSENT)


def understood(reply: type[Reply], answer: httpx.Response) -> Reply:
    """What an answer says.

    Raises:
        AnswerNotUnderstood: It has another form.
    """
    try:
        return reply.model_validate_json(answer.content)
    except ValidationError as error:
        where = "; ".join("/".join(map(str, mistake["loc"])) for mistake in error.errors()[:3])
        raise AnswerNotUnderstood(
            f"The answer of {answer.request.url.path} is no {reply.__name__}: {where}."
        ) from error


def _said(query: Mapping[str, object]) -> dict[str, Any]:
    """As a URL says it; a moment needs its time zone."""
    said = {name: value for name, value in query.items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in said.items()}


class Calls:
    """Calls over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session


class Retry:
    """Growing pauses until patience ends, drawn at random so that clients do not come back all at once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.begin_anew()

    @property
    def began(self) -> bool:
        """Whether there has been trouble."""
        return self._deadline is not None

    def begin_anew(self) -> None:
        """Be as patient as at first, as something has arrived."""
        self._deadline: float | None = None
        self._longest_s = FIRST_PAUSE_S

    async def pause(self, error: Exception) -> None:
        """Wait before the next try, at least as long as the service asks for. Patience counts from the first trouble.

        Raises:
            ServiceUnreachable: The next try would come too late.
            ServiceRefused: The same, of a service that answers and says that something is used up.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + self._session.patience_s
        asked_s = error.after_s if isinstance(error, Busy) else 0.0
        pause_s = asked_s + random.uniform(0, self._longest_s)  # noqa: S311 - no secret
        if time.monotonic() + pause_s > self._deadline:
            if isinstance(error, Busy) and error.refused:
                raise ServiceRefused(error.problem) from error
            raise ServiceUnreachable(f"The service does not answer: {str(error) or type(error).__name__}") from error
        await self._session.waiting.sleep(pause_s)
        self._longest_s = min(2 * self._longest_s, LONGEST_PAUSE_S)


async def check(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is one.

    Raises:
        ServiceRefused: It is a problem document.
        Busy: It says to come again.
    """
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    problem = _problem(answer, await answer.aread())
    if answer.status_code in BUSY:
        raise Busy(problem, answer.headers.get("Retry-After", ""))
    raise ServiceRefused(problem)


def _problem(answer: httpx.Response, body: bytes) -> Problem:
    try:
        return Problem.model_validate_json(body)
    except ValidationError:
        url = answer.request.url.copy_with(query=None)  # with it, a URL that a storage signed still opens the file
        return Problem(
            status=answer.status_code,
            code="unexpected_answer",
            detail=f"{url} answered HTTP {answer.status_code} without a problem document.",
            next_step="Check that the URL is the service's.",
            request_id=answer.headers.get("X-Request-Id", ""),
        )
