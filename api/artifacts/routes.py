"""The HTTP side of downloads: ranges, entity tags, digests. Bytes go from the storage to the socket in chunks."""

import base64
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.artifacts import service, tar
from api.artifacts.ranges import parse_range
from api.artifacts.schemas import ArtifactList
from api.auth import Caller
from api.conditional import has_tag, quoted
from api.errors import responses
from api.parameters import ArtifactId, JobId
from api.resources import ReadSession, Resources, Shared
from api.store.models import Artifact

router = APIRouter(tags=["artifacts"])

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
CONTENT_RESPONSES = {
    **responses(HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    HTTPStatus.OK: BYTES,
    HTTPStatus.PARTIAL_CONTENT: {**BYTES, "description": "The range that was asked for."},
    HTTPStatus.NOT_MODIFIED: {"description": "The caller has these bytes."},
}
REDIRECT = {
    HTTPStatus.TEMPORARY_REDIRECT: {
        "description": "The file, or the range of it, is at the storage; ask there without the API key.",
        "headers": {"Location": {"description": "Good for some minutes.", "schema": {"type": "string"}}},
    }
}


@router.get("/jobs/{job_id}/artifacts", summary="A job's files", responses=responses(HTTPStatus.NOT_FOUND))
def of_job(job_id: JobId, caller: Caller, session: ReadSession) -> ArtifactList:
    """Empty until the job has succeeded."""
    return service.of_job(session, caller, job_id)


@router.get(
    "/jobs/{job_id}/checkpoint",
    summary="Download the pruned model as a tar",
    response_class=StreamingResponse,
    responses={
        **responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE),
        HTTPStatus.OK: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
    },
)
def checkpoint(job_id: JobId, caller: Caller, session: ReadSession, resources: Shared) -> StreamingResponse:
    """Unpack it into an empty folder; `from_pretrained` loads that folder."""
    members = service.checkpoint(session, caller, job_id, storage=resources.storage)
    headers = {"Content-Length": str(tar.length(members)), "Content-Disposition": _attachment(f"{job_id}.tar")}
    return StreamingResponse(tar.stream(members), media_type="application/x-tar", headers=headers)


@router.head("/artifacts/{artifact_id}/content", summary="What a download would send", responses=CONTENT_RESPONSES)
@router.get(
    "/artifacts/{artifact_id}/content",
    summary="Download a file, or a range of it",
    response_class=StreamingResponse,
    responses=CONTENT_RESPONSES | REDIRECT,
)
def content(
    *,
    artifact_id: ArtifactId,
    caller: Caller,
    session: ReadSession,
    resources: Shared,
    request: Request,
    range: Annotated[str | None, Header(description="`bytes=first-last`, one range.")] = None,  # noqa: A002 - header's name
    if_range: Annotated[str | None, Header(description="Honour Range only if this is the ETag.")] = None,
    if_none_match: Annotated[str | None, Header(description="ETags that the caller has.")] = None,
) -> Response:
    """The file never changes: its ETag is its sha256, and an interrupted download can go on with Range."""
    artifact = service.find(session, caller, artifact_id, storage=resources.storage)
    headers = _headers(artifact)
    if has_tag(if_none_match, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    honoured = if_range is None or if_range == headers["ETag"]
    part = parse_range(range, artifact.bytes) if honoured else None
    offset, length = part or (0, artifact.bytes)
    headers |= {"Content-Length": str(length), "Content-Disposition": _attachment(PurePosixPath(artifact.path).name)}
    if part is not None:
        headers["Content-Range"] = part.content_range(artifact.bytes)
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    # The storage has entity tags of its own, so that only this service can tell whether an If-Range holds.
    elsewhere = _presigned(artifact, resources) if if_range is None else None
    if elsewhere is not None:
        return RedirectResponse(elsewhere, HTTPStatus.TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"})
    chunks = resources.storage.iterate(artifact.storage_key, offset=offset, length=length)
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=artifact.media_type)


def _presigned(artifact: Artifact, resources: Resources) -> str | None:
    """Where the storage itself gives the file, if it may be asked for it."""
    if not resources.settings.presigned_downloads:
        return None
    return resources.storage.presign(artifact.storage_key, valid_s=resources.settings.presigned_ttl_s)


def _headers(artifact: Artifact) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "ETag": quoted(artifact.sha256),
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }


def _attachment(name: str) -> str:
    """Content-Disposition that cannot be broken out of, whatever the name holds (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
