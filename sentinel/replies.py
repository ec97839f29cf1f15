"""What the service answers, as frozen values. Knows the wire's names; keys that a newer service adds are ignored."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from sentinel.result import Result

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(_Reply):
    """Why a job or an attempt failed: what, whose fault (`user`, `resource`, `service`), and what to do next."""

    code: str
    fault: str
    message: str
    next_step: str
    log_tail: str = ""


class Artifact(_Reply):
    """One immutable file of a finished job; `path` is e.g. `checkpoint/config.json`."""

    id: str
    kind: str
    path: str
    sha256: str
    bytes: int
    media_type: str


class JobSummary(_Reply):
    """One job in a list. `progress` is the share that is done, 0 to 1."""

    id: str
    parent_id: str | None = None
    name: str | None
    state: str
    phase: str | None
    cycle: int | None
    kept_cycle: int | None = None
    progress: float
    attempt: int
    max_attempts: int
    error: Failure | None
    checkpoint_uri: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.state in TERMINAL_STATES


class Job(JobSummary):
    """One job with everything that is known of it."""

    spec: dict[str, Any]
    result: Result | None
    artifacts: tuple[Artifact, ...]


class JobEvent(_Reply):
    """One line of a job's history; `seq` counts from 1 without gaps."""

    seq: int
    type: str
    data: dict[str, Any]
    token: int | None
    created_at: datetime


class Attempt(_Reply):
    """One try of a job on one worker; `outcome` is null while it runs."""

    number: int
    token: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    error: Failure | None


class ProblemField(_Reply):
    """One mistake in a request, with its RFC 6901 pointer."""

    pointer: str
    code: str
    message: str


class Problem(_Reply):
    """How the service says no (RFC 9457)."""

    status: int
    code: str
    detail: str
    next_step: str
    request_id: str
    errors: tuple[ProblemField, ...] = ()
