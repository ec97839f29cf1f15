"""A job's files as rows: artifacts that its readers may download, and the states after its cycles.

Knows which file of an experiment is which artifact, by its place; the bytes are in `storage`.
"""

import mimetypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.store.errors import ArtifactNotFound
from api.store.models import Artifact, ArtifactKind, Checkpoint, Job, new_id

MEDIA_TYPES = {".safetensors": "application/octet-stream", ".jsonl": "application/jsonl", ".log": "text/plain"}
KINDS = {"result.json": ArtifactKind.RESULT, "metrics.jsonl": ArtifactKind.METRICS}
FOLDER_KINDS = {"checkpoint": ArtifactKind.CHECKPOINT, "plots": ArtifactKind.PLOT}
# A claim goes on behind the newest state of the earlier ones; if that is lost it begins anew, and its own states count.
NEWEST_STATE_FIRST = (Checkpoint.token.desc(), Checkpoint.cycle.desc())


@dataclass(frozen=True, kw_only=True)
class NewArtifact:
    """A stored file that is to be published; fields as in `Artifact`."""

    kind: ArtifactKind
    path: str
    sha256: str
    bytes: int
    media_type: str
    storage_key: str


def kind_of(path: str) -> ArtifactKind | None:
    """What a file is to readers: `checkpoint/…`, `plots/…`, `result.json`, `metrics.jsonl`; None for all others."""
    first, *rest = PurePosixPath(path).parts
    return FOLDER_KINDS.get(first) if rest else KINDS.get(first)


def media_type_of(path: str) -> str:
    """By the name's ending."""
    return MEDIA_TYPES.get(PurePosixPath(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def publish(session: Session, job_id: str, token: int, artifacts: Iterable[NewArtifact]) -> None:
    """Let readers see files that the claim `token` stored."""
    session.add_all(Artifact(id=new_id("art"), job_id=job_id, token=token, **vars(new)) for new in artifacts)


def publish_newest_state(session: Session, job_id: str) -> None:
    """Let readers see what is left of a job that ends without a result: its newest state."""
    kept = newest_checkpoint(session, job_id)
    if kept is None:
        return
    readable = [
        NewArtifact(kind=kind, media_type=media_type_of(file["path"]), **file)
        for file in kept.manifest
        if (kind := kind_of(file["path"])) is not None
    ]
    publish(session, job_id, kept.token, readable)


def newest_checkpoint(session: Session, job_id: str) -> Checkpoint | None:
    """The state from which a job would go on."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return session.scalar(query.order_by(*NEWEST_STATE_FIRST).limit(1))


def keep_files(session: Session, job_id: str) -> None:
    """Keep the files of an ended job from expiring until the transaction ends; they are to be read only then.

    SQLite ignores it: there the writing transaction itself holds the lock.
    """
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(read=True))


def list_artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """Published files by path."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path)).all()


def get_artifact(session: Session, tenant: str, artifact_id: str) -> Artifact:
    """One published file.

    Raises:
        ArtifactNotFound: It does not exist, or belongs to somebody else's job.
    """
    query = select(Artifact).join(Job, Job.id == Artifact.job_id)
    artifact = session.scalar(query.where(Artifact.id == artifact_id, Job.tenant == tenant))
    if artifact is None:
        raise ArtifactNotFound(artifact_id)
    return artifact
