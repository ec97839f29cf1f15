"""The tables, as typed classes. Knows columns and keys; who may write what is in `jobs` and `leases`."""

from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, Integer, MetaData, String, desc
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils import uuid7

from api.store.database import QUEUE_INDEX, UtcDateTime, db_now
from api.store.states import State

Json = dict[str, Any]


class ManifestFile(TypedDict):
    """One file of a resume state; `path` is relative to the state's folder."""

    path: str
    sha256: str
    bytes: int
    storage_key: str


class SlotReport(TypedDict):
    """What one slot of a worker has now.

    Attributes:
        device: Name of the device, for people.
        devices: The values of a spec's `device` that it serves.
        total_bytes, free_bytes: Memory of the device, and what of it a job could have.
        busy: Whether it runs a job.
    """

    device: str
    devices: list[str]
    total_bytes: int
    free_bytes: int
    busy: bool


class ArtifactKind(StrEnum):
    """What an artifact is to the reader of a job."""

    CHECKPOINT = "checkpoint"
    RESULT = "result"
    METRICS = "metrics"
    PLOT = "plot"
    LOG = "log"


class UploadKind(StrEnum):
    """What an upload is to a spec."""

    MODEL = "model"
    TEXT = "text"


class UploadState(StrEnum):
    """Whether an upload can be used: not yet, from now on, or never."""

    OPEN = "open"
    READY = "ready"
    REFUSED = "refused"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WORKER_LOST = "worker_lost"
    RELEASED = "released"


class DeliveryState(StrEnum):
    """Whether a webhook has been told."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"


class Try(TypedDict):
    """One request to a webhook.

    Attributes:
        at: When it was sent, RFC 3339.
        status: Of the answer; None if none came.
        milliseconds: Until the answer, or until there was none.
        error: Why there was none.
    """

    at: str
    status: int | None
    milliseconds: int
    error: str | None


def new_id(prefix: str) -> str:
    """A time-ordered unique id, e.g. `job_0199…`: sorting ids sorts by creation."""
    return f"{prefix}_{uuid7().hex}"


def _name_of(words: type[StrEnum]) -> Enum:
    """Stored as plain text, so that a new word needs no change of schema."""
    return Enum(words, native_enum=False, length=32, values_callable=lambda members: [word.value for word in members])


class Base(DeclarativeBase):
    """Common types and the names that constraints get, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as declared
        str: String,
        datetime: UtcDateTime,
        State: _name_of(State),
        ArtifactKind: _name_of(ArtifactKind),
        Outcome: _name_of(Outcome),
        DeliveryState: _name_of(DeliveryState),
        UploadKind: _name_of(UploadKind),
        UploadState: _name_of(UploadState),
        Json: JSON(none_as_null=True),
        list[str]: JSON,
        list[ManifestFile]: JSON,
        list[SlotReport]: JSON,
        list[Try]: JSON,
    }


class ApiKey(Base):
    """A bearer key; only the SHA-256 of its secret is kept.

    What is null is not limited: jobs that wait, jobs that workers hold, seconds of slots in a calendar month, bytes of
    files. `rate_limit` takes the place of the service's, like `600/minute`.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    secret_hash: Mapped[str]
    scopes: Mapped[list[str]]
    max_queued_jobs: Mapped[int | None]
    max_running_jobs: Mapped[int | None]
    max_gpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    rate_limit: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "tenant", "created_at", "id"),)


class Sweep(Base):
    """Many jobs that were submitted as one; never changes. What its jobs have come to is in their own rows.

    `document` is what was submitted; `max_parallel` and `slot_seconds` are its limits, null for none.
    """

    __tablename__ = "sweeps"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str | None]
    document: Mapped[Json]
    max_parallel: Mapped[int | None]
    slot_seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index(None, "tenant", "id"),)


class Job(Base):
    """One run of one concrete spec.

    `key_id` is the key that submitted it, null for a job of an earlier version;
    `parent_id` is the job that this one tries again, which may be gone;
    `sweep_id` is the sweep that it belongs to, and `point` what that's grid says of it;
    `version` goes up with every change that a reader can see; `attempt` counts the tries charged to the job;
    `lease_token` goes up at every claim and fences the writes of earlier claims; `last_seq` is the newest event's seq;
    `kept_cycle` is the last one whose state is kept; `grace_s` is how long a job that is to stop may go on;
    `device` is the kind that it asks for; `needs_bytes` is what it will take of its memory, null until that is known.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    key_id: Mapped[str | None]
    parent_id: Mapped[str | None]
    sweep_id: Mapped[str | None]
    point: Mapped[Json | None]
    name: Mapped[str | None]
    spec: Mapped[Json]
    state: Mapped[State]
    phase: Mapped[str | None]
    cycle: Mapped[int | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    version: Mapped[int] = mapped_column(default=1)
    priority: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    not_before: Mapped[datetime] = mapped_column(default=db_now())
    deadline: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    grace_s: Mapped[float | None]
    kept_cycle: Mapped[int | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    device: Mapped[str] = mapped_column(server_default="auto")
    needs_bytes: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[Json | None]
    error: Mapped[Json | None]
    request_id: Mapped[str | None]
    trace_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (
        Index(QUEUE_INDEX, "state", desc("priority"), "created_at", "id"),
        Index("ix_jobs_lease", "state", "lease_expires_at"),
        Index(None, "state", "deadline"),
        Index(None, "tenant", "id"),
        Index(None, "tenant", "state", "id"),
        Index(None, "tenant", "name", "id"),
        Index(None, "sweep_id", "id"),
        Index(None, "tenant", "key_id", "state", "finished_at"),
    )


class Attempt(Base):
    """One try of a job on one worker; `number` is the job's `attempt` when it began."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    token: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(default=db_now())
    finished_at: Mapped[datetime | None]
    outcome: Mapped[Outcome | None]
    error: Mapped[Json | None]


class JobEvent(Base):
    """One line of a job's history.

    `seq` counts from 1 without gaps; `token` is the latest claim's, null before the first.
    """

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[int | None]
    type: Mapped[str]
    data: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class Metric(Base):
    """One measured number, written by the attempt that held `token`."""

    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str]
    step: Mapped[int]
    token: Mapped[int]
    cycle: Mapped[int | None]
    value: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index(None, "job_id", "name", "step"),)


class Artifact(Base):
    """An immutable file of a finished job; the row is its publication, and stays when the file has expired."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    token: Mapped[int]
    kind: Mapped[ArtifactKind]
    path: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    storage_key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expired_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "job_id", "path", unique=True), Index(None, "storage_key"))


class Checkpoint(Base):
    """The newest state after `cycle` or in the healing of the next one, from which a later attempt can resume."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    cycle: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    manifest: Mapped[list[ManifestFile]]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class IdempotencyKey(Base):
    """Which job a tenant's idempotency key stands for, and the hash of the request that made it."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class AuditEntry(Base):
    """Something that somebody did; `key_id` is null for the operator. Entries are only added."""

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    key_id: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    details: Mapped[Json | None]
    request_id: Mapped[str | None]
    client: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index(None, "tenant", "id"),)


class Worker(Base):
    """A worker process, for as long as it is heard of."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    slots: Mapped[list[SlotReport]]
    seen_at: Mapped[datetime]
    started_at: Mapped[datetime] = mapped_column(default=db_now())


class Webhook(Base):
    """A URL that is told of a tenant's events.

    `secret` signs, as plain text: a hash could not. `old_secret` signs beside it until `old_secret_expires_at`.
    `failing_since` is the first failure behind the last success; `disabled_reason` is why the service gave it up.
    """

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    description: Mapped[str | None]
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index(None, "tenant", "id"),)


class Delivery(Base):
    """One event that one webhook is to be told of; `message` is what it says.

    `failures` counts failed tries since it was last asked for, which ends at `give_up_at`; the lease is that of the
    process which is sending it, and null while none is.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    message: Mapped[Json]
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.PENDING)
    tries: Mapped[list[Try]] = mapped_column(default=list)
    failures: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime] = mapped_column(default=db_now())
    give_up_at: Mapped[datetime]
    lease_token: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (
        Index(None, "state", "next_try_at"),
        Index(None, "webhook_id", "id"),
        Index(None, "webhook_id", "lease_expires_at"),
    )


class Upload(Base):
    """A model or a text that a tenant brings.

    `bytes` is what its files take, or will once they are here; `error` says why it was refused; `idempotency_key` and
    `request_hash` are of the request that made it.
    """

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    kind: Mapped[UploadKind]
    name: Mapped[str | None]
    state: Mapped[UploadState]
    bytes: Mapped[int] = mapped_column(BigInteger)
    error: Mapped[Json | None]
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    updated_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (
        Index(None, "tenant", "id"),
        Index(None, "tenant", "idempotency_key", unique=True),
        Index(None, "state", "updated_at"),
    )


class UploadFile(Base):
    """One file of an upload: declared first, here once it has a `storage_key`. An archive gives way to its members."""

    __tablename__ = "upload_files"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str | None]

    __table_args__ = (Index(None, "storage_key"),)
