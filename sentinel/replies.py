"""What the service answers, as frozen values. Knows the wire's names; keys that a newer service adds are ignored."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel

from sentinel.result import Result

T = TypeVar("T")
Cost = Literal["parameters", "latency_ms", "kv_bytes_per_token"]
Minimised = Literal["loss", "perplexity", "kl_to_dense", Cost]

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
    sweep_id: str | None = None
    point: dict[str, Any] | None = None
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


class Sweep(_Reply):
    """Many jobs that were submitted as one; `document` is what was submitted, and null in a list."""

    id: str
    name: str | None
    points: int
    counts: dict[str, int]
    progress: float
    ended: bool
    max_parallel: int | None
    used_slot_s: float
    created_at: datetime
    document: dict[str, Any] | None = None


class SweepVerdict(_Reply):
    """What a service says of a sweep without running it; `largest` is of the job that needs the most memory."""

    valid: bool
    errors: tuple[ProblemField, ...]
    points: tuple[dict[str, Any], ...]
    largest: Estimate | None


class Measures(_Reply):
    """What was measured of a pruned model, or how far that is spread over seeds."""

    loss: float
    perplexity: float
    kl_to_dense: float
    agreement: float
    parameters: int | float
    kv_bytes_per_token: int | float
    latency_ms: float
    attention_groups: int | float
    mlp_groups: int | float


class RowJob(_Reply):
    """The job behind a row."""

    id: str
    state: str


class SweepRow(_Reply):
    """One point of a sweep; `result` is null before a job of it has succeeded, `spread` of fewer than two."""

    point: dict[str, Any]
    jobs: tuple[RowJob, ...]
    result: Measures | None
    spread: Measures | None


class UploadFile(_Reply):
    """One file of an upload; `stored` once it is there and right."""

    number: int
    path: str
    bytes: int
    sha256: str
    stored: bool


class UploadSummary(_Reply):
    """One upload in a list: `open` until all files are there, then `ready`, or `refused` for good."""

    id: str
    kind: str
    name: str | None
    state: str
    bytes: int
    error: Failure | None
    created_at: datetime


class Upload(UploadSummary):
    """One upload with its files."""

    files: tuple[UploadFile, ...]


class Quotas(_Reply):
    """What a key may have; null is as much as it likes."""

    max_queued_jobs: int | None = None
    max_running_jobs: int | None = None
    max_gpu_seconds: int | None = None
    max_stored_bytes: int | None = None


class Key(_Reply):
    """One API key, without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    quotas: Quotas
    rate_limit: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(Key):
    """A key that was just made; `key` is its only copy."""

    key: str


class Use(_Reply):
    """What jobs take, as the quotas count it."""

    queued_jobs: int
    running_jobs: int
    gpu_seconds: float
    stored_bytes: int
    jobs: dict[str, int]


class KeyUse(Use):
    """What the jobs of one key take; without an id, those that no key is known of."""

    key_id: str | None
    name: str | None
    quotas: Quotas


class Usage(_Reply):
    """What the jobs of a tenant take; `gpu_seconds` between `start` and `end`."""

    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    total: Use
    keys: tuple[KeyUse, ...]


class AuditEntry(_Reply):
    """Something that somebody did to `target`; `key_id` is null for the operator."""

    id: str
    action: str
    target: str
    details: dict[str, Any] | None
    key_id: str | None
    request_id: str | None
    client: str | None
    created_at: datetime


class Webhook(_Reply):
    """A URL that is told what becomes of jobs."""

    id: str
    url: str
    events: tuple[str, ...]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    old_secret_expires_at: datetime | None
    created_at: datetime


class WebhookWithSecret(Webhook):
    """A webhook with its newest secret, which is not shown again."""

    secret: str


class Try(_Reply):
    """One request to a webhook; `status` is null if no answer came."""

    at: datetime
    status: int | None
    milliseconds: int
    error: str | None


class Delivery(_Reply):
    """One message to one webhook, and what became of it."""

    id: str
    state: str
    message: dict[str, Any]
    tries: tuple[Try, ...]
    next_try_at: datetime | None
    created_at: datetime
