"""Finding artifacts and opening their bytes. Knows no HTTP."""

from functools import partial
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.artifacts import tar
from api.artifacts.schemas import ArtifactList, ArtifactView
from api.auth import Principal
from api.refusals import JobNotFinished
from api.store import jobs as store
from api.store.models import Artifact, ArtifactKind
from api.store.states import State
from api.store.storage import Storage


def of_job(session: Session, caller: Principal, job_id: str) -> ArtifactList:
    """Every file of a job."""
    job = store.get_job(session, caller.tenant, job_id)
    return ArtifactList(data=[ArtifactView.of(artifact) for artifact in store.list_artifacts(session, job.id)])


def find(session: Session, caller: Principal, artifact_id: str, *, storage: Storage) -> Artifact:
    """One file of any of the caller's jobs.

    Raises:
        ArtifactNotFound: No such file, or somebody else's.
        ObjectMissing: The storage has lost it; asked now, while it can still be said.
    """
    artifact = store.get_artifact(session, caller.tenant, artifact_id)
    storage.head(artifact.storage_key)
    return artifact


def checkpoint(session: Session, caller: Principal, job_id: str, *, storage: Storage) -> list[tar.Member]:
    """The pruned model's files, named relative to their folder.

    Raises:
        JobNotFinished: The job has not succeeded.
    """
    job = store.get_job(session, caller.tenant, job_id)
    if job.state != State.SUCCEEDED:
        raise JobNotFinished(f"The job is {job.state}; only a succeeded job has a checkpoint.")
    artifacts = store.list_artifacts(session, job.id)
    return [_member(artifact, storage) for artifact in artifacts if artifact.kind == ArtifactKind.CHECKPOINT]


def _member(artifact: Artifact, storage: Storage) -> tar.Member:
    return tar.Member(
        name=str(PurePosixPath(artifact.path).relative_to("checkpoint")),
        size=artifact.bytes,
        modified_s=artifact.created_at.timestamp(),
        chunks=partial(storage.iterate, artifact.storage_key),
    )
