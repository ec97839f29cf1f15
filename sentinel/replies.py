"""What the service answers, as frozen values. Knows the wire's names; keys that a newer service adds are ignored."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel

from sentinel.result import Result

T = TypeVar("T")

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(_Reply, Generic[T]):
    """A list, or a part of one; `next_cursor` leads to the next."""

    data: tuple[T, ...]
    has_more: bool = False
    next_cursor: str | None = None


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
    queue_reason: str | None = None
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


class MetricPoint(_Reply):
    """One measured number; `step` counts healing steps over the whole experiment."""

    step: int
    value: float
    cycle: int | None


class Metrics(RootModel[dict[str, tuple[MetricPoint, ...]]]):
    """Metric name → its points in order."""


class Slot(_Reply):
    """A place on a worker for one job at a time; `devices` are the values of a spec's `device` that it serves."""

    device: str
    devices: tuple[str, ...]
    total_bytes: int
    free_bytes: int
    busy: bool


class Worker(_Reply):
    """One living worker process."""

    id: str
    slots: tuple[Slot, ...]
    started_at: datetime
    seen_at: datetime


class Strategy(_Reply):
    """One strategy, in words and as a JSON Schema of the `prune` section that uses it."""

    name: str
    summary: str
    formula: str
    source: str
    needs: tuple[str, ...]
    cost: str
    prune_schema: dict[str, Any]


class Estimate(_Reply):
    """What a job will take of its device's memory at most."""

    parameters: int
    memory_bytes: int


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


class Verdict(_Reply):
    """What a service says of a spec without running it.

    `estimate` is null while nobody there has seen the model, `queue_reason` if nothing would keep the job waiting.
    """

    valid: bool
    errors: tuple[ProblemField, ...]
    resolved_spec: dict[str, Any] | None
    estimate: Estimate | None
    queue_reason: str | None
