"""How requests to the service meet trouble: what is tried again, for how long, and what counts as a refusal."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from pydantic import ValidationError

from sentinel.errors import Fault, SentinelError
from sentinel.replies import Problem

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
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


class Busy(Exception):
    """The service is there but cannot answer now; `after_s` is what its Retry-After asks for."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"HTTP {answer.status_code}")
        wanted = answer.headers.get("Retry-After", "")
        self.after_s = float(wanted) if wanted.isdecimal() else 0.0


class Retry:
    """Growing pauses until patience ends."""

    def __init__(self, patience_s: float) -> None:
        self._deadline = time.monotonic() + patience_s
        self._pause_s = FIRST_PAUSE_S

    def pause(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            ServiceUnreachable: The next try would come too late.
        """
        pause_s = max(self._pause_s, getattr(error, "after_s", 0.0))
        if time.monotonic() + pause_s > self._deadline:
            raise ServiceUnreachable(f"The service does not answer: {error}") from error
        time.sleep(pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def patiently(action: Callable[[], T], *, patience_s: float) -> T:
    """Do what may be done twice, again and again until it meets neither a broken connection nor a busy service."""
    retry = Retry(patience_s)
    while True:
        try:
            return action()
        except (httpx.TransportError, Busy) as error:
            retry.pause(error)


def check(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is one.

    Raises:
        ServiceRefused: It is a problem document.
    """
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    if answer.status_code in BUSY:
        raise Busy(answer)
    raise ServiceRefused(_problem(answer))


def _problem(answer: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(answer.read())
    except ValidationError:
        url = answer.request.url.copy_with(query=None)  # with it, a URL that a storage signed still opens the file
        return Problem(
            status=answer.status_code,
            code="unexpected_answer",
            detail=f"{url} answered HTTP {answer.status_code} without a problem document.",
            next_step="Check that the URL is the service's.",
            request_id=answer.headers.get("X-Request-Id", ""),
        )
