"""Why an attempt failed, as the error that the job shows. Knows causes; who decides on a retry is here too."""

import signal
from typing import Any

from api.store.errors import StorageUnavailable
from sentinel.errors import Fault, SentinelError

MAX_BACKOFF_S = 300.0


class RunnerCrashed(SentinelError):
    """The child process ended without saying how the experiment ended."""

    code = "runner_crashed"
    next_step = "Read the log lines; if it was killed by SIGKILL, the host likely ran out of memory."

    def __init__(self, exit_code: int) -> None:
        how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
        super().__init__(f"The process that ran the experiment ended unexpectedly with {how}.")


class AttemptBroken(SentinelError):
    """The worker itself failed in a way that nobody foresaw."""

    code = "attempt_broken"
    next_step = "Report this with the lines around it in the worker's log; the service tries the job again by itself."

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"The worker failed while it ran the experiment: {type(cause).__name__}: {cause}")


class RuntimeExceeded(SentinelError):
    """The attempt took longer than the spec allows."""

    code = "runtime_exceeded"
    fault = Fault.USER
    next_step = "Raise `limits.max_runtime_s`, or ask for fewer cycles or healing steps."

    def __init__(self, limit_s: int) -> None:
        super().__init__(f"The attempt reached its limit of {limit_s} s and was stopped.")


class PublishingFailed(SentinelError):
    """The results could not be stored."""

    code = "publishing_failed"
    next_step = "Check that the storage can be reached and written, then submit the job again."

    def __init__(self, cause: Exception) -> None:
        what_next = cause.instance_next_step if isinstance(cause, StorageUnavailable) else None
        super().__init__(f"The results could not be stored: {cause}", next_step=what_next)


class AttemptFailed(Exception):
    """Ends an attempt with an error for the job.

    Attributes:
        error: `SentinelError.as_dict()` of the cause.
    """

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error["message"])
        self.error = error

    @property
    def retry(self) -> bool:
        """Whether another try can help: only where neither the user nor a resource is at fault."""
        return self.error["fault"] == Fault.SERVICE

    def report(self, *, log_tail: str) -> dict[str, Any]:
        """The job's error: what, whose fault, what next, and the last log lines."""
        return {**self.error, "log_tail": log_tail}


def backoff_s(attempt: int) -> float:
    """Seconds before the next try: 2, 4, 8, … up to five minutes."""
    return float(min(2.0**attempt, MAX_BACKOFF_S))
