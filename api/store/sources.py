"""Which stored files a job's spec names by an id: a tenant's uploads, and the checkpoints of jobs that have ended.

Knows which fields of a spec name some, and what can be wrong with them; the bytes are in `storage`.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.store.errors import ArtifactExpired, CheckpointMissing, UploadKindWrong, UploadNotReady
from api.store.files import keep_files, list_artifacts
from api.store.jobs import get_job
from api.store.models import ArtifactKind, Job, Json, ManifestFile, UploadKind, UploadState
from api.store.states import is_terminal
from api.store.uploads import UNFINISHED, lock_upload, manifest_of
from sentinel.locating import EVALUATION, MODEL, TRAIN

CHECKPOINT = PurePosixPath("checkpoint")


class Named(NamedTuple):
    """Something that a spec names by an id.

    Attributes:
        use: As `sentinel.locating` calls what it serves.
        source: `upload` or `job`.
        id: The name.
        pointer: The field of the spec.
    """

    use: str
    source: str
    id: str
    pointer: str


def named_in(spec: Json) -> Iterator[Named]:
    """Everything that a resolved spec names by an id."""
    model, data = spec["model"], spec["data"]
    if model["source"] in ("upload", "job"):
        yield Named(MODEL, model["source"], model["id"], "/model/id")
    if data["source"] == "upload":
        for use in (TRAIN, EVALUATION):
            if data[use] is not None:
                yield Named(use, "upload", data[use], f"/data/{use}")


def files_of(session: Session, tenant: str, named: Named) -> tuple[ManifestFile, ...]:
    """The files, which are kept from being deleted until the transaction ends.

    Raises:
        UploadNotFound, JobNotFound: It does not exist, or is somebody else's.
        UploadNotReady, UploadKindWrong, CheckpointMissing, ArtifactExpired: It cannot be used, for the reason they say.
    """
    if named.source == "job":
        return _of_job(session, tenant, named.id)
    return _of_upload(session, tenant, named.id, UploadKind.MODEL if named.use == MODEL else UploadKind.TEXT)


def _of_upload(session: Session, tenant: str, upload_id: str, kind: UploadKind) -> tuple[ManifestFile, ...]:
    upload = lock_upload(session, tenant, upload_id, shared=True)
    files = manifest_of(session, upload_id)
    if upload.state != UploadState.READY or files is None:
        raise UploadNotReady(upload_id, upload.state)
    if upload.kind != kind:
        raise UploadKindWrong(upload_id, found=upload.kind, needed=kind)
    return files


def _of_job(session: Session, tenant: str, job_id: str) -> tuple[ManifestFile, ...]:
    """Of the checkpoint what lies in no folder of it: those hold pictures for its card."""
    job = get_job(session, tenant, job_id)
    if not is_terminal(job.state):
        raise CheckpointMissing(job_id, job.state)
    keep_files(session, job_id)
    published = [file for file in list_artifacts(session, job_id) if file.kind == ArtifactKind.CHECKPOINT]
    if not published:
        raise CheckpointMissing(job_id, job.state)
    if published[0].expired_at is not None:
        raise ArtifactExpired(f"The checkpoint of {job_id}")
    return tuple(
        ManifestFile(path=path.name, sha256=file.sha256, bytes=file.bytes, storage_key=file.storage_key)
        for file in published
        if (path := PurePosixPath(file.path)).parent == CHECKPOINT
    )


def inputs_of(session: Session, job_id: str) -> dict[str, tuple[ManifestFile, ...]]:
    """What a worker has to fetch for a job, by use.

    Raises:
        StoreError: As in `files_of`; what was accepted with the job is kept for it, so the store has lost something.
    """
    job = session.get_one(Job, job_id)
    return {named.use: files_of(session, job.tenant, named) for named in named_in(job.spec)}


def awaited_jobs() -> Select[tuple[str]]:
    """Jobs of whose checkpoint another one that has not ended makes use."""
    source, name = (Job.spec["model"][key].as_string() for key in ("source", "id"))
    return select(name).where(Job.state.in_(UNFINISHED), source == "job")
