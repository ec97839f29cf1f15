"""What a key may have at once and in a month: refuses what is too much, holds back what has to wait.

Both are decided under a lock of the key's row, so that requests or workers that race do not exceed a quota together.
On SQLite the writing transaction is that lock.
"""

import math
from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from api.store.errors import QuotaExceeded, StoredBytesExceeded
from api.store.models import ApiKey, Job
from api.store.states import LEASED, UNHELD
from api.store.usage import gpu_seconds, jobs_by_state, month_of, of_key, stored_bytes

CHECK_AGAIN_S = 30  # a queue that is full may have moved on by then


def check(session: Session, jobs: Sequence[Job]) -> None:
    """See that jobs of one key, which were just stored, keep within its quotas; if not, they must not be committed.

    Raises:
        QuotaExceeded: Naming the quota, its limit and what is used.
    """
    quotas = (ApiKey.max_queued_jobs, ApiKey.max_gpu_seconds, ApiKey.max_stored_bytes)
    job = jobs[0]
    limited = _locked_key(job.key_id).where(or_(*(quota.is_not(None) for quota in quotas)))
    key = None if job.key_id is None else session.scalar(limited)
    if key is not None:
        _check_queue(session, key, new=len(jobs))
        _check_time(session, key, job)
        _check_files(session, key)


def _check_queue(session: Session, key: ApiKey, *, new: int) -> None:
    """A paused job waits too: it can be resumed whatever the queue is like."""
    if key.max_queued_jobs is None:
        return
    waiting = jobs_by_state(session, *of_key(key.tenant, key.id), Job.state.in_(UNHELD))[key.id]
    used = sum(waiting.values()) - new
    if used + new > key.max_queued_jobs:
        raise QuotaExceeded("max_queued_jobs", limit=key.max_queued_jobs, used=used, retry_after_s=CHECK_AGAIN_S)


def _check_time(session: Session, key: ApiKey, job: Job) -> None:
    if key.max_gpu_seconds is None:
        return
    month = month_of(job.created_at)
    used = gpu_seconds(session, *of_key(key.tenant, key.id), period=month).get(key.id, 0.0)
    if used >= key.max_gpu_seconds:
        left_s = math.ceil((month.end - job.created_at).total_seconds())
        raise QuotaExceeded("max_gpu_seconds", limit=key.max_gpu_seconds, used=math.floor(used), retry_after_s=left_s)


def _check_files(session: Session, key: ApiKey) -> None:
    if key.max_stored_bytes is None:
        return
    used = stored_bytes(session, *of_key(key.tenant, key.id)).get(key.id, 0)
    if used >= key.max_stored_bytes:
        raise StoredBytesExceeded("max_stored_bytes", limit=key.max_stored_bytes, used=used)


@cache  # to build it takes longer than to ask it, and each look at a queued job does
def full() -> ColumnElement[bool]:
    """Condition of a key of which as many jobs run as may. Of keys without that quota, no jobs are counted."""
    held = aliased(Job)
    of_it = (held.tenant == ApiKey.tenant, held.key_id == ApiKey.id, held.state.in_(LEASED))
    running = select(func.count()).where(*of_it).correlate(ApiKey).scalar_subquery()
    return and_(ApiKey.max_running_jobs.is_not(None), ApiKey.max_running_jobs <= running)


def may_run() -> ColumnElement[bool]:
    """Condition of a job that its key lets run now. The keys are asked for once, not for every job."""
    return or_(Job.key_id.is_(None), Job.key_id.not_in(select(ApiKey.id).where(full())))


def take_room(session: Session, key: ApiKey) -> bool:
    """Whether one more job of a key may run; if so, nobody else can say so before the transaction ends.

    If not, the lock is let go at once: the caller may ask for another key, and two that wait for each other's would
    wait for ever.
    """
    trial = session.begin_nested()
    session.execute(_locked_key(key.id))
    if session.scalar(select(ApiKey.id).where(ApiKey.id == key.id, full())) is None:
        trial.commit()
        return True
    trial.rollback()
    return False


def _locked_key(key_id: str | None) -> Select[ApiKey]:
    return select(ApiKey).where(ApiKey.id == key_id).with_for_update()
