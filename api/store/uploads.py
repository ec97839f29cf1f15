"""What tenants bring themselves: uploads and their files, from the declaration to the end.

Every function works inside the caller's transaction and sees only the tenant's own rows, but for the collector's. An
upload is `ready` once every file that was declared lies in the storage and has been checked.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import IdempotencyMismatch, UploadFileNotFound, UploadInUse, UploadNotFound, UploadsFull
from api.store.keys import lock_tenant
from api.store.models import (
    Job,
    Json,
    ManifestFile,
    Upload,
    UploadFile,
    UploadKind,
    UploadState,
    new_id,
)
from api.store.states import State, is_terminal

UNFINISHED = [state for state in State if not is_terminal(state)]
SHOWN_USERS = 5  # jobs that a refusal names


class DeclaredFile(NamedTuple):
    """A file that is to come; its path is a plain name."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What an upload is to be."""

    kind: UploadKind
    name: str | None
    files: Sequence[DeclaredFile]


class Declared(NamedTuple):
    """An upload; `replayed` when an earlier request made it."""

    upload: Upload
    replayed: bool


def upload_prefix(upload_id: str) -> str:
    """The folder of everything that an upload stores."""
    return f"uploads/{upload_id}"


def declare(
    session: Session,
    tenant: str,
    declaration: Declaration,
    *,
    limit: int,
    request_hash: str,
    idempotency_key: str | None,
) -> Declared:
    """Make an upload whose files are still to come; their bytes count from now on.

    Args:
        session: A writing transaction.
        tenant: Whose it is.
        declaration: What it is to be.
        limit: Bytes that the tenant may have uploaded.
        request_hash: Of the request.
        idempotency_key: The same key and request give the same upload again.

    Raises:
        IdempotencyMismatch: The key stands for another request.
        UploadsFull: The tenant would have more than the limit.
    """
    upload = Upload(
        id=new_id("upl"),
        tenant=tenant,
        kind=declaration.kind,
        name=declaration.name,
        state=UploadState.OPEN,
        bytes=sum(file.bytes for file in declaration.files),
        idempotency_key=idempotency_key,
        request_hash=request_hash,
    )
    try:
        # The unique key decides between requests that race; the loser's upload never existed.
        with session.begin_nested():
            session.add(upload)
            session.flush()
    except IntegrityError:
        earlier = _replay(session, tenant, idempotency_key)
        if earlier is None:
            raise
        if earlier.request_hash != request_hash:
            raise IdempotencyMismatch(str(idempotency_key)) from None
        return Declared(earlier, replayed=True)
    _check_limit(session, tenant, needed=upload.bytes, limit=limit)
    _add_files(session, upload.id, declaration.files)
    return Declared(upload, replayed=False)


def _replay(session: Session, tenant: str, idempotency_key: str | None) -> Upload | None:
    asked = (Upload.tenant == tenant, Upload.idempotency_key == idempotency_key)
    return session.scalar(select(Upload).where(*asked))


def _check_limit(session: Session, tenant: str, *, needed: int, limit: int) -> None:
    """`needed` bytes are counted already."""
    lock_tenant(session, tenant)
    used = uploaded_bytes(session, tenant) - needed
    if used + needed > limit:
        raise UploadsFull(needed=needed, used=used, limit=limit)


def uploaded_bytes(session: Session, tenant: str) -> int:
    """What a tenant's uploads take in the storage, or will once all of their files are here."""
    total = select(func.coalesce(func.sum(Upload.bytes), 0)).where(Upload.tenant == tenant)
    return int(session.scalars(total).one())


def _add_files(session: Session, upload_id: str, files: Sequence[DeclaredFile]) -> None:
    session.add_all(
        UploadFile(upload_id=upload_id, number=number, **file._asdict()) for number, file in enumerate(files)
    )


def get_upload(session: Session, tenant: str, upload_id: str) -> Upload:
    """One upload.

    Raises:
        UploadNotFound: It does not exist, or is somebody else's: the caller cannot tell which.
    """
    upload = session.scalar(select(Upload).where(Upload.id == upload_id, Upload.tenant == tenant))
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload


def lock_upload(session: Session, tenant: str, upload_id: str, *, shared: bool = False) -> Upload:
    """`get_upload`, as it is now, and keep others from changing it until the transaction ends; `shared` from deleting.

    Raises:
        UploadNotFound: As in `get_upload`.
    """
    query = select(Upload).where(Upload.id == upload_id, Upload.tenant == tenant).with_for_update(read=shared)
    upload = session.scalar(query, execution_options={"populate_existing": True})
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload


def list_uploads(session: Session, tenant: str, *, limit: int, after_id: str | None = None) -> Sequence[Upload]:
    """Newest first; `after_id` is the last id of the page before."""
    query = select(Upload).where(Upload.tenant == tenant)
    if after_id is not None:
        query = query.where(Upload.id < after_id)
    return session.scalars(query.order_by(Upload.id.desc()).limit(limit)).all()


def list_files(session: Session, upload_id: str) -> Sequence[UploadFile]:
    """An upload's files in the order of their declaration."""
    return session.scalars(
        select(UploadFile).where(UploadFile.upload_id == upload_id).order_by(UploadFile.number),
        execution_options={"populate_existing": True},
    ).all()


def get_file(session: Session, upload_id: str, number: int) -> UploadFile:
    """One file.

    Raises:
        UploadFileNotFound: None of this number was declared.
    """
    file = session.get(UploadFile, (upload_id, number))
    if file is None:
        raise UploadFileNotFound(upload_id, number)
    return file


def manifest_of(session: Session, upload_id: str) -> tuple[ManifestFile, ...] | None:
    """What the storage has of an upload; None while files are missing."""
    files = list_files(session, upload_id)
    stored = tuple(
        ManifestFile(path=file.path, sha256=file.sha256, bytes=file.bytes, storage_key=file.storage_key)
        for file in files
        if file.storage_key is not None
    )
    return stored if len(stored) == len(files) else None


def record_file(session: Session, tenant: str, upload_id: str, number: int, storage_key: str) -> None:
    """Make a file count that lies verified in the storage.

    Raises:
        UploadNotFound: The upload was deleted meanwhile.
    """
    upload = lock_upload(session, tenant, upload_id)
    get_file(session, upload_id, number).storage_key = storage_key
    upload.updated_at = db_now()


def replace_archive(
    session: Session, tenant: str, upload_id: str, members: Sequence[ManifestFile], *, limit: int
) -> None:
    """Put what was in an archive, which lies verified in the storage, in the archive's place.

    Raises:
        UploadNotFound: The upload was deleted meanwhile.
        UploadsFull: Unpacked, it would take more than the tenant may have.
    """
    upload = lock_upload(session, tenant, upload_id)
    session.execute(delete(UploadFile).where(UploadFile.upload_id == upload_id))
    session.add_all(UploadFile(upload_id=upload_id, number=number, **file) for number, file in enumerate(members))
    more = sum(file["bytes"] for file in members) - upload.bytes
    upload.bytes += more
    upload.updated_at = db_now()
    session.flush()
    _check_limit(session, tenant, needed=more, limit=limit)


def close(session: Session, tenant: str, upload_id: str, *, error: Json | None) -> None:
    """Say that an open upload can be used, or why not; one that is closed already stays as it is.

    Raises:
        UploadNotFound: The upload was deleted meanwhile.
    """
    upload = lock_upload(session, tenant, upload_id)
    if upload.state == UploadState.OPEN:
        upload.state = UploadState.READY if error is None else UploadState.REFUSED
        upload.error = error
        upload.updated_at = db_now()


def delete_upload(session: Session, tenant: str, upload_id: str) -> list[str]:
    """Forget an upload; returns the keys of its files.

    Raises:
        UploadNotFound: As in `get_upload`.
        UploadInUse: Jobs that have not ended name it.
    """
    upload = lock_upload(session, tenant, upload_id)
    if users := _unfinished_users(session, upload):
        raise UploadInUse(upload_id, users)
    keys = [file.storage_key for file in list_files(session, upload_id) if file.storage_key is not None]
    session.execute(delete(Upload).where(Upload.id == upload_id))
    return keys


def _unfinished_users(session: Session, upload: Upload) -> Sequence[str]:
    places = (Job.spec["model"]["id"], Job.spec["data"]["train"], Job.spec["data"]["evaluation"])
    names_it = or_(*(place.as_string() == upload.id for place in places))
    query = select(Job.id).where(Job.tenant == upload.tenant, Job.state.in_(UNFINISHED), names_it)
    return session.scalars(query.order_by(Job.id).limit(SHOWN_USERS)).all()


def drop_abandoned(session: Session, *, idle_s: float) -> None:
    """Let go of uploads that were never completed, or were refused, and of which nothing was heard for so long."""
    idle = delete(Upload).where(Upload.state != UploadState.READY, Upload.updated_at < db_now(-idle_s))
    session.execute(idle, execution_options={"synchronize_session": False})


def uploaded_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Those of `keys` that are files of an upload."""
    named = select(UploadFile.storage_key).where(UploadFile.storage_key.in_(keys))
    return {key for key in session.scalars(named) if key is not None}
