"""Which stored files nobody can ask for any more.

A file counts as long as a row names it: an artifact that has not expired, or the state from which a job would go on.
A log counts as long as the files of its job do.
Rows go first and files later, so that no row ever names a file that was deleted.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, and_, delete, exists, func, not_, or_, select, tuple_, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.files import NEWEST_STATE_FIRST
from api.store.models import Artifact, Checkpoint, Job, ManifestFile
from api.store.sources import awaited_jobs
from api.store.states import State, is_terminal
from api.store.storage import LOG_NAME

EXPIRED_AT_ONCE = 10_000  # jobs, each a parameter of a query
TERMINAL = [state for state in State if is_terminal(state)]


def expire_files(session: Session, *, retention_s: float) -> None:
    """Let go of all files of jobs that ended longer ago, and that no job waits for that has not ended.

    Their artifacts are still listed, as expired. Of very many jobs some are left for the next round, and so are those
    that somebody is just about to use.
    """
    artifacts = exists().where(Artifact.job_id == Job.id, Artifact.expired_at.is_(None))
    has_files = or_(artifacts, exists().where(Checkpoint.job_id == Job.id))
    candidates = select(Job.id).where(_has_expired(retention_s), has_files, Job.id.not_in(awaited_jobs()))
    locked = session.scalars(candidates.limit(EXPIRED_AT_ONCE).with_for_update(skip_locked=True, key_share=True)).all()
    # Once more: whoever named one just before it was locked has committed by now, after the first look.
    ended = select(Job.id).where(Job.id.in_(locked), Job.id.not_in(awaited_jobs()))
    kept = update(Artifact).where(Artifact.expired_at.is_(None), Artifact.job_id.in_(ended))
    session.execute(kept.values(expired_at=db_now()), execution_options={"synchronize_session": False})
    session.execute(
        delete(Checkpoint).where(Checkpoint.job_id.in_(ended)), execution_options={"synchronize_session": False}
    )


def drop_superseded_states(session: Session) -> None:
    """Let go of every state but the newest of each job: only from that one a job would go on."""
    key = (Checkpoint.job_id, Checkpoint.cycle, Checkpoint.token)
    newest_first = func.row_number().over(partition_by=Checkpoint.job_id, order_by=NEWEST_STATE_FIRST)
    ranked = select(*key, newest_first.label("rank")).subquery()
    older = select(ranked.c.job_id, ranked.c.cycle, ranked.c.token).where(ranked.c.rank > 1)
    session.execute(delete(Checkpoint).where(tuple_(*key).in_(older)), execution_options={"synchronize_session": False})


def adopted_keys(session: Session) -> set[str]:
    """Files in other jobs' folders that retries have taken over, and from which they have not gone on yet."""
    return _keys(session.scalars(select(Checkpoint.manifest).where(Checkpoint.token == 0)))


def referenced_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Those of `keys` that a row of their own job names, or an artifact of any."""
    artifacts = select(Artifact.storage_key).where(Artifact.storage_key.in_(keys), Artifact.expired_at.is_(None))
    owners = {_owner(key) for key in keys}
    states = session.scalars(select(Checkpoint.manifest).where(Checkpoint.job_id.in_(owners)))
    return set(session.scalars(artifacts)) | (_keys(states) & set(keys))


def kept_logs(session: Session, keys: Collection[str], *, retention_s: float | None) -> set[str]:
    """Those of `keys` that are logs of jobs whose files are kept; for ever without a retention."""
    logs = {key for key in keys if key.endswith(f"/{LOG_NAME}")}
    owners = select(Job.id).where(Job.id.in_({_owner(key) for key in logs}))
    if retention_s is not None:
        owners = owners.where(not_(_has_expired(retention_s)))
    kept = set(session.scalars(owners))
    return {key for key in logs if _owner(key) in kept}


def has_expired(session: Session, job_id: str, *, retention_s: float | None) -> bool:
    """Whether the files of a job are not kept any more; without a retention they are for ever."""
    if retention_s is None:
        return False
    return session.scalar(select(Job.id).where(Job.id == job_id, _has_expired(retention_s))) is not None


def _has_expired(retention_s: float) -> ColumnElement[bool]:
    """Of a job: that it ended so long ago that its files are not kept any more."""
    return and_(Job.state.in_(TERMINAL), Job.finished_at < db_now(-retention_s))


def _keys(manifests: Iterable[list[ManifestFile]]) -> set[str]:
    return {file["storage_key"] for manifest in manifests for file in manifest}


def _owner(key: str) -> str:
    """The job in whose folder a file lies: `jobs/<id>/attempts/…`."""
    return key.split("/")[1]
