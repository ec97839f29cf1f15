"""What the upload routes do. Knows no HTTP.

Bytes are never moved inside a transaction: files go to the storage first, and count once a row names them.
"""

from typing import NamedTuple

from sqlalchemy.orm import Session

from api.auth import Principal
from api.jobs.documents import fingerprint
from api.paging import cut, position
from api.refusals import UploadTooLarge
from api.settings import Settings
from api.store import audit
from api.store import uploads as store
from api.store.models import Upload
from api.uploads.schemas import UploadPage, UploadRequest, UploadSummary, UploadView


class Written(NamedTuple):
    """An upload as a request left it; `already` when an earlier one had made it."""

    view: UploadView
    already: bool


def declare(
    session: Session, caller: Principal, request: UploadRequest, *, settings: Settings, idempotency_key: str | None
) -> Written:
    """Make room for an upload whose files are still to come.

    Raises:
        UploadTooLarge: It would have more or larger files than the settings allow.
        UploadsFull: The tenant would have more bytes than they allow.
        IdempotencyMismatch: The key stands for another request.
    """
    _check_limits(request, settings)
    declared = store.declare(
        session,
        caller.tenant,
        request.declaration(),
        limit=settings.max_tenant_upload_bytes,
        request_hash=fingerprint(request.model_dump(mode="json")),
        idempotency_key=idempotency_key,
    )
    upload = declared.upload
    if not declared.replayed:
        details = {"kind": upload.kind, "name": upload.name, "bytes": upload.bytes}
        audit.record(session, caller, "upload.make", upload.id, details)
    return Written(_show(session, upload), already=declared.replayed)


def _check_limits(request: UploadRequest, settings: Settings) -> None:
    limits = {
        f"more than {settings.max_upload_files} files": len(request.files) > settings.max_upload_files,
        f"a file of more than {settings.max_upload_file_bytes} bytes": any(
            file.bytes > settings.max_upload_file_bytes for file in request.files
        ),
        f"more than {settings.max_upload_bytes} bytes": sum(f.bytes for f in request.files) > settings.max_upload_bytes,
    }
    if exceeded := [what for what, is_so in limits.items() if is_so]:
        raise UploadTooLarge(f"The upload has {' and '.join(exceeded)}.")


def show(session: Session, caller: Principal, upload_id: str) -> UploadView:
    """One upload with its files."""
    return _show(session, store.get_upload(session, caller.tenant, upload_id))


def _show(session: Session, upload: Upload) -> UploadView:
    return UploadView.whole(upload, store.list_files(session, upload.id))


def page(session: Session, caller: Principal, *, limit: int, cursor: str | None) -> UploadPage:
    """One page of the caller's uploads, newest first.

    Raises:
        CursorInvalid: The cursor is none of ours.
    """
    after_id = position(cursor, prefix="upl_")
    uploads = store.list_uploads(session, caller.tenant, limit=limit + 1, after_id=after_id)
    shown, next_cursor = cut(uploads, limit)
    return UploadPage(
        data=[UploadSummary.of(upload) for upload in shown],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


def delete(session: Session, caller: Principal, upload_id: str) -> list[str]:
    """Forget an upload; returns the keys of its files, which can go once that is committed.

    Raises:
        UploadInUse: Jobs that have not ended name it.
    """
    keys = store.delete_upload(session, caller.tenant, upload_id)
    audit.record(session, caller, "upload.delete", upload_id)
    return keys
