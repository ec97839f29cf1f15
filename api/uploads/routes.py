"""The HTTP side of uploads."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response

from api.auth import Caller
from api.errors import responses
from api.parameters import IdempotencyKey, UploadId
from api.resources import ReadSession, Shared, WriteSession
from api.uploads import service
from api.uploads.receiving import Receiver
from api.uploads.schemas import UploadPage, UploadRequest, UploadView

router = APIRouter(prefix="/uploads", tags=["uploads"])

FILE_BODIES = re.compile(r"/v1/uploads/[^/]+/files/[^/]+")
"""Paths of requests whose bodies are files."""

LARGEST_NUMBER = 2**31 - 1
NOT_FOUND = responses(HTTPStatus.NOT_FOUND)
BYTES: dict[str, Any] = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Declare an upload",
    responses=responses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.INSUFFICIENT_STORAGE),
)
def declare(
    *,
    upload: UploadRequest,
    caller: Caller,
    session: WriteSession,
    resources: Shared,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> UploadView:
    """Say what will come: a model's files, or a .tar or .zip of them, or one file of text.

    Then `PUT` each file to its `links.content`. With the last one the upload is `ready`, and specs can name its id.
    """
    written = service.declare(session, caller, upload, settings=resources.settings, idempotency_key=idempotency_key)
    response.headers["Location"] = written.view.links.self
    if written.already:
        response.headers["Idempotent-Replayed"] = "true"
    return written.view


@router.put(
    "/{upload_id}/files/{number}",
    summary="Send one file of an upload",
    responses=responses(
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
    openapi_extra={"requestBody": BYTES},
)
async def receive(
    upload_id: UploadId,
    number: Annotated[int, Path(description="As the upload numbers its files.", ge=0, le=LARGEST_NUMBER)],
    caller: Caller,
    resources: Shared,
    request: Request,
) -> UploadView:
    """The body is the file; it counts only if it has the size and the sha256 that were declared. May be sent again.

    With the last file a model is checked, as far as its headers tell: one that cannot be used is refused for good.
    """
    return await Receiver(resources, caller, upload_id).receive(number, request.stream())


@router.get("", summary="List uploads, newest first", responses=responses(HTTPStatus.BAD_REQUEST))
def page(
    caller: Caller,
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)] = None,
) -> UploadPage:
    """Pages never shift or repeat while uploads are added."""
    return service.page(session, caller, limit=limit, cursor=cursor)


@router.get("/{upload_id}", summary="Show an upload", responses=NOT_FOUND)
def show(upload_id: UploadId, caller: Caller, session: ReadSession) -> UploadView:
    """Its state, and which files are here."""
    return service.show(session, caller, upload_id)


@router.delete(
    "/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete an upload",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete(
    upload_id: UploadId, caller: Caller, session: WriteSession, resources: Shared, background: BackgroundTasks
) -> None:
    """Not while a job that has not ended names it."""
    keys = service.delete(session, caller, upload_id)
    # After the commit; what this fails to delete, the collector will.
    background.add_task(resources.storage.delete, keys)
