"""What can go wrong between a caller and the store, in words a user can act on."""

from collections.abc import Sequence
from datetime import datetime

from sentinel.errors import Fault, SentinelError


class StoreError(SentinelError):
    """Base of the store's errors."""


class JobNotFound(StoreError):
    """No job of this tenant has the id."""

    code = "job_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/jobs` lists the jobs that this key can see."

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id!r}.")


class SweepNotFound(StoreError):
    """No sweep of this tenant has the id."""

    code = "sweep_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/sweeps` lists the sweeps that this key can see."

    def __init__(self, sweep_id: str) -> None:
        super().__init__(f"There is no sweep {sweep_id!r}.")


class SweepBudgetSpent(StoreError):
    """The job waited when its sweep had used up its budget."""

    code = "sweep_budget_spent"
    fault = Fault.USER
    next_step = "Submit its spec as a job of its own, or what is left of the grid as a sweep with a larger budget."

    def __init__(self, *, used: float, budget: float) -> None:
        super().__init__(f"The sweep has used {used:,.0f} of the {budget:,.0f} slot-seconds of its budget.")


class AttemptNotFound(StoreError):
    """The job has had no attempt with the token."""

    code = "attempt_not_found"
    fault = Fault.USER
    next_step = "Take a `token` of `GET /v1/jobs/{id}/attempts`, or leave it out for the newest attempt."

    def __init__(self, token: int) -> None:
        super().__init__(f"The job has no attempt with the token {token}.")


class LogNotStored(StoreError):
    """The attempt ended before its worker had stored anything of its log."""

    code = "log_not_stored"
    fault = Fault.USER
    next_step = "`GET /v1/jobs/{id}/attempts` says how the attempt ended; its worker may have a log of its own."

    def __init__(self, token: int) -> None:
        super().__init__(f"Nothing was stored of what the attempt with the token {token} has printed.")


class ArtifactNotFound(StoreError):
    """No published artifact of this tenant has the id."""

    code = "artifact_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/jobs/{id}/artifacts` lists a job's artifacts."

    def __init__(self, artifact_id: str) -> None:
        super().__init__(f"There is no artifact {artifact_id!r}.")


class ArtifactExpired(StoreError):
    """The files of the job were kept as long as the operator wanted."""

    code = "artifact_expired"
    fault = Fault.USER
    next_step = "Retry the job to make its files again; SENTINEL_RETENTION_DAYS says how long they are kept."

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not kept any more.")


class UploadNotFound(StoreError):
    """No upload of this tenant has the id."""

    code = "upload_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/uploads` lists the uploads that this key can see."

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"There is no upload {upload_id!r}.")


class UploadFileNotFound(StoreError):
    """The upload has no file of this number."""

    code = "upload_file_not_found"
    fault = Fault.USER
    next_step = "`GET /v1/uploads/{id}` lists the files that were declared, with their numbers."

    def __init__(self, upload_id: str, number: int) -> None:
        super().__init__(f"The upload {upload_id!r} has no file {number}.")


class UploadNotReady(StoreError):
    """Files of the upload are missing, or it was refused."""

    code = "upload_not_ready"
    fault = Fault.USER
    next_step = "`GET /v1/uploads/{id}` says which files are missing, or why it was refused."

    def __init__(self, upload_id: str, state: str) -> None:
        super().__init__(f"The upload {upload_id!r} is {state}.")


class UploadKindWrong(StoreError):
    """The upload is a text where a model is needed, or the other way round."""

    code = "upload_kind_wrong"
    fault = Fault.USER
    next_step = "Name an upload of the other kind, or make one."

    def __init__(self, upload_id: str, *, found: str, needed: str) -> None:
        super().__init__(f"The upload {upload_id!r} is a {found}, and a {needed} is needed.")


class UploadInUse(StoreError):
    """Jobs that have not ended read the upload."""

    code = "upload_in_use"
    fault = Fault.USER
    next_step = "Wait for the end of these jobs or cancel them."

    def __init__(self, upload_id: str, job_ids: Sequence[str]) -> None:
        super().__init__(f"The upload {upload_id!r} is read by {', '.join(job_ids)}.")


class UploadsFull(StoreError):
    """What the tenant has uploaded may not grow so much."""

    code = "uploads_full"
    fault = Fault.USER
    next_step = "Delete uploads that no job needs any more; SENTINEL_MAX_TENANT_UPLOAD_BYTES is the limit."

    def __init__(self, *, needed: int, used: int, limit: int) -> None:
        super().__init__(f"{needed} bytes more than the {used} that are uploaded would exceed the limit of {limit}.")


class CheckpointMissing(StoreError):
    """The job has no checkpoint that another could begin with."""

    code = "no_checkpoint"
    fault = Fault.USER
    next_step = "Name a job whose `checkpoint_uri` is set."

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"The job {job_id!r} is {state} and has no checkpoint.")


class InvalidTransition(StoreError):
    """The job's state does not allow the step.

    Attributes:
        state: The state that the job is in.
        allowed: States that can follow it.
    """

    code = "invalid_transition"
    fault = Fault.USER
    next_step = "Look at the job's state; only the allowed transitions can follow it."

    def __init__(self, *, state: str, to: str, allowed: list[str]) -> None:
        super().__init__(f"A {state} job cannot become {to}; allowed: {', '.join(allowed) or 'nothing'}.")
        self.state = state
        self.allowed = allowed


class JobNotEnded(StoreError):
    """Only what has ended can be tried again."""

    code = "job_not_ended"
    fault = Fault.USER
    next_step = "Wait for the job's end or cancel it, then retry it."

    def __init__(self, *, job_id: str, state: str) -> None:
        super().__init__(f"The job {job_id} is {state}.")


class DeadlineInvalid(StoreError):
    """No job could keep the deadline."""

    code = "deadline_invalid"
    fault = Fault.USER
    next_step = "Name a deadline that is still to come, and later than `not_before`."

    def __init__(self, deadline: datetime) -> None:
        super().__init__(f"The deadline {deadline.isoformat()} comes before the job may start.")


class DeadlineExceeded(StoreError):
    """The job had not ended by its deadline."""

    code = "deadline_exceeded"
    fault = Fault.USER
    next_step = "Submit or retry the job with a later deadline; a retry goes on behind the last cycle that was kept."

    def __init__(self) -> None:
        super().__init__("The job had not ended by its deadline.")


class IdempotencyMismatch(StoreError):
    """An idempotency key came back with another request."""

    code = "idempotency_mismatch"
    fault = Fault.USER
    next_step = "Send the same body as the first time, or use a new Idempotency-Key."

    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key!r} was used before with another request.")


class KeyNotFound(StoreError):
    """No key of this tenant has the id."""

    code = "key_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/keys` lists the keys of this tenant."

    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id!r}.")


class QuotaExceeded(StoreError):
    """The key has all that it may have; waiting helps.

    Attributes:
        quota: Its name.
        limit: What the key may have.
        used: What it has.
        retry_after_s: Seconds after which there may be room; None where time makes none.
    """

    code = "quota_exceeded"
    fault = Fault.USER
    next_step = "Wait until there is room again, or let somebody with the scope `admin` raise the quota."

    def __init__(self, quota: str, *, limit: int, used: int, retry_after_s: int | None = None) -> None:
        super().__init__(f"The key's quota {quota!r} is {limit}, and {used} are used.")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.retry_after_s = retry_after_s


class StoredBytesExceeded(QuotaExceeded):
    """The files of the key's jobs take all that they may; they stay until they expire."""

    next_step = "Submit with another key, or let somebody with the scope `admin` raise the quota."


class LeaseLost(StoreError):
    """The worker no longer has the right to write the job."""

    code = "lease_lost"
    next_step = "Stop the attempt and write nothing; the job belongs to another attempt or has ended."

    def __init__(self, *, job_id: str, token: int) -> None:
        super().__init__(f"Token {token} of {job_id} no longer holds the lease.")


class WorkerLost(StoreError):
    """The worker of an attempt let its lease expire."""

    code = "worker_lost"
    next_step = "Look at the worker's log for the time of the attempt (memory, restarts), then submit the job again."


class WebhookNotFound(StoreError):
    """No webhook of this tenant has the id."""

    code = "webhook_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/webhooks` lists the webhooks that this key can see."

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"There is no webhook {webhook_id!r}.")


class DeliveryNotFound(StoreError):
    """The webhook has no such delivery, or not any more."""

    code = "delivery_not_found"
    fault = Fault.USER
    next_step = "Check the id; `GET /v1/webhooks/{id}/deliveries` lists a webhook's deliveries."

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"There is no delivery {delivery_id!r}.")


class WebhookDisabled(StoreError):
    """Nothing is sent to a webhook that is not enabled."""

    code = "webhook_disabled"
    fault = Fault.USER
    next_step = 'Enable it with `PATCH /v1/webhooks/{id}` and `{"enabled": true}`.'

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"The webhook {webhook_id} is disabled.")


class TooManyWebhooks(StoreError):
    """The tenant has as many as it may."""

    code = "too_many_webhooks"
    fault = Fault.USER
    next_step = "Delete one that is not needed any more, or let one tell of more events."

    def __init__(self, limit: int) -> None:
        super().__init__(f"There are {limit} webhooks already, which is the limit.")


class StorageUriInvalid(StoreError):
    """The storage's URI names nothing that can be opened."""

    code = "storage_uri_invalid"
    next_step = "Correct SENTINEL_STORAGE_URI."

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(f"The storage's URI must be file:///folder or s3://bucket/prefix, not {uri!r}: {cause}")


class StorageUnavailable(StoreError):
    """The storage cannot be reached, is in trouble, or refuses."""

    code = "storage_unavailable"
    next_step = "Check that the storage runs and can be reached from this host."

    def __init__(self, cause: str, *, next_step: str | None = None) -> None:
        super().__init__(f"The storage does not do its part: {cause}", next_step=next_step)


class ObjectMissing(StoreError):
    """The storage has no object under the key."""

    code = "object_missing"
    next_step = "Check that the storage is the one that the database belongs to."

    def __init__(self, key: str) -> None:
        super().__init__(f"The storage holds nothing under {key!r}.")


class ObjectDamaged(StoreError):
    """Stored bytes are not the bytes that were written."""

    code = "object_damaged"
    next_step = "Check the storage's disk; restore the object from a copy."

    def __init__(self, key: str, *, expected: str, found: str) -> None:
        super().__init__(f"The object {key!r} has {found}, not {expected}.")
