"""Finding artifacts and opening their bytes. Knows no HTTP."""

from functools import partial
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.artifacts import tar
from api.artifacts.schemas import ArtifactList, ArtifactView
from api.auth import Principal
from api.refusals import NoCheckpoint
from api.store import files
from api.store.errors import ArtifactExpired
from api.store.jobs import get_job
from api.store.models import Artifact, ArtifactKind, Job
from api.store.states import is_terminal
from api.store.storage import Storage


def of_job(session: Session, caller: Principal, job_id: str) -> ArtifactList:
    """Every file of a job."""
    job = get_job(session, caller.tenant, job_id)
    return ArtifactList(data=[ArtifactView.of(artifact) for artifact in files.list_artifacts(session, job.id)])


def find(session: Session, caller: Principal, artifact_id: str, *, storage: Storage) -> Artifact:
    """One file of any of the caller's jobs.

    Raises:
        ArtifactNotFound: No such file, or somebody else's.
        ArtifactExpired: It is not kept any more.
        ObjectMissing, ObjectDamaged: The storage has lost it, or a part; asked now, while it can still be said.
    """
    artifact = files.get_artifact(session, caller.tenant, artifact_id)
    _check_kept(artifact)
    storage.check_whole(artifact.storage_key, artifact.bytes)
    return artifact


def checkpoint(session: Session, caller: Principal, job_id: str, *, storage: Storage) -> list[tar.Member]:
    """As `of_checkpoint`, for an archive.

    Raises:
        ObjectMissing, ObjectDamaged: As in `find`, of any of the files.
    """
    found = of_checkpoint(session, get_job(session, caller.tenant, job_id))
    for artifact in found.values():
        storage.check_whole(artifact.storage_key, artifact.bytes)
    return [_member(path, artifact, storage) for path, artifact in found.items()]


def of_checkpoint(session: Session, job: Job) -> dict[str, Artifact]:
    """The pruned model's files by their path in its folder; without success, as its last kept cycle left it.

    Raises:
        NoCheckpoint: The job has not ended, or ended before it had kept a cycle.
        ArtifactExpired: It is not kept any more.
    """
    published = [a for a in files.list_artifacts(session, job.id) if a.kind == ArtifactKind.CHECKPOINT]
    if not published:
        kept = "has not ended yet" if not is_terminal(job.state) else "ended before it had kept a cycle"
        raise NoCheckpoint(f"The job is {job.state}: it {kept}.")
    _check_kept(published[0])
    return {str(PurePosixPath(artifact.path).relative_to("checkpoint")): artifact for artifact in published}


def _check_kept(artifact: Artifact) -> None:
    if artifact.expired_at is not None:
        raise ArtifactExpired(artifact.path)


def _member(path: str, artifact: Artifact, storage: Storage) -> tar.Member:
    return tar.Member(
        name=path,
        size=artifact.bytes,
        modified_s=artifact.created_at.timestamp(),
        chunks=partial(storage.iterate, artifact.storage_key),
    )
