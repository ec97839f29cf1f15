"""What the runner of an attempt has printed, as its worker copies it to the storage. Knows no HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.auth import Principal
from api.store import jobs as store
from api.store.errors import ArtifactExpired, AttemptNotFound, LogNotStored, ObjectMissing
from api.store.garbage import has_expired
from api.store.storage import Storage, log_key

END = "X-Log-End"
MOST_TAIL_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Log:
    """One log as it is by now; it only grows. An empty one has nothing in the storage."""

    storage: Storage
    key: str
    size: int

    def following(self, after: int) -> Iterator[bytes]:
        """What comes behind so many bytes."""
        return self.storage.iterate(self.key, offset=after, length=max(0, self.size - after))

    def last_lines(self, count: int, after: int) -> bytes:
        """The last lines of what comes behind so many bytes, as far as they fit into `MOST_TAIL_BYTES`."""
        text = b"".join(self.following(max(after, self.size - MOST_TAIL_BYTES)))
        lines = text.splitlines(keepends=True)
        return b"".join(lines[max(0, len(lines) - count) :])


def find(
    session: Session,
    caller: Principal,
    job_id: str,
    *,
    storage: Storage,
    token: int | None,
    retention_s: float | None,
) -> Log:
    """The log of an attempt, or of the newest.

    Raises:
        JobNotFound: No such job, or somebody else's.
        AttemptNotFound: The job has none with this token.
        ArtifactExpired: The job ended so long ago that its log is not kept any more.
        LogNotStored: The attempt has ended, and there never was any.
    """
    job = store.get_job(session, caller.tenant, job_id)
    attempts = store.list_attempts(session, job.id)
    chosen = [attempt for attempt in attempts if token in (None, attempt.token)]
    if not chosen:
        if token is not None:
            raise AttemptNotFound(token)
        return Log(storage=storage, key="", size=0)
    attempt = chosen[-1]
    key = log_key(job.id, attempt.token)
    try:
        return Log(storage=storage, key=key, size=storage.head(key))
    except ObjectMissing as missing:
        if has_expired(session, job.id, retention_s=retention_s):
            raise ArtifactExpired("The log of this attempt") from missing
        if attempt.finished_at is not None:
            raise LogNotStored(attempt.token) from missing
        return Log(storage=storage, key=key, size=0)
