"""The HTTP side of downloads: a job's files, one by one or the checkpoint as a whole."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from api.artifacts import service, tar
from api.artifacts.delivery import CONTENT_RESPONSES, LENGTH, REDIRECT, Delivery, attachment
from api.artifacts.schemas import ArtifactList
from api.auth import Caller
from api.errors import responses
from api.parameters import ArtifactId, JobId
from api.resources import ReadSession, Shared

router = APIRouter(tags=["artifacts"])


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
        HTTPStatus.OK: {
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
            "headers": LENGTH,
        },
    },
)
def checkpoint(job_id: JobId, caller: Caller, session: ReadSession, resources: Shared) -> StreamingResponse:
    """Unpack it into an empty folder; `from_pretrained` loads that folder."""
    members = service.checkpoint(session, caller, job_id, storage=resources.storage)
    headers = {"Content-Length": str(tar.length(members)), "Content-Disposition": attachment(f"{job_id}.tar")}
    return StreamingResponse(tar.stream(members), media_type="application/x-tar", headers=headers)


@router.head("/artifacts/{artifact_id}/content", summary="What a download would send", responses=CONTENT_RESPONSES)
@router.get(
    "/artifacts/{artifact_id}/content",
    summary="Download a file, or a range of it",
    response_class=StreamingResponse,
    responses=CONTENT_RESPONSES | REDIRECT,
)
def content(
    artifact_id: ArtifactId, caller: Caller, session: ReadSession, resources: Shared, delivery: Delivery
) -> Response:
    """The file never changes: its ETag is its sha256, and an interrupted download can go on with Range."""
    return delivery.of(service.find(session, caller, artifact_id, storage=resources.storage))
