"""The read side of the Hub's protocol, for `HF_ENDPOINT=<this service>/hub` and `HF_TOKEN=<an API key>`.

What would send clients to Xet, another way to fetch files, is never said. Lists of files come whole: a checkpoint has
few, so no answer has a next page.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from api.artifacts.delivery import CONTENT_RESPONSES, REDIRECT, Delivery
from api.auth import Caller
from api.conditional import quoted
from api.errors import responses
from api.hub import service
from api.hub.refusals import RepositoryNotFound
from api.hub.refusing import HubRoute
from api.hub.schemas import ModelInfo, TreeEntry
from api.parameters import JobId
from api.resources import ReadSession, Shared

router = APIRouter(prefix="/hub", tags=["hub"], route_class=HubRoute)

MODEL = "/api/models/jobs/{job_id}"
FILE = "/jobs/{job_id}/resolve/{revision}/{path:path}"
REFUSED = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
FILE_RESPONSES = CONTENT_RESPONSES | responses(HTTPStatus.CONFLICT)

Revision = Annotated[str, Path(description="`main`, or the commit.")]


@router.get(MODEL, summary="A job's model", responses=REFUSED)
def info(job_id: JobId, caller: Caller, session: ReadSession) -> ModelInfo:
    """Its commit and its files."""
    return service.find(session, caller, job_id).info()


@router.get(f"{MODEL}/revision/{{revision:path}}", summary="A job's model at a revision", responses=REFUSED)
def info_at(job_id: JobId, revision: Revision, caller: Caller, session: ReadSession) -> ModelInfo:
    """Its commit and its files."""
    return service.find(session, caller, job_id, revision).info()


@router.get(f"{MODEL}/tree/{{revision}}", summary="The files of a job's model", responses=REFUSED)
def tree(
    job_id: JobId, revision: Revision, caller: Caller, session: ReadSession, *, recursive: bool = False
) -> list[TreeEntry]:
    """In its uppermost folder, or in all of them."""
    return service.find(session, caller, job_id, revision).tree("", recursive=recursive)


@router.get(f"{MODEL}/tree/{{revision}}/{{path:path}}", summary="The files in a folder of it", responses=REFUSED)
def tree_of_folder(
    job_id: JobId, revision: Revision, path: str, caller: Caller, session: ReadSession, *, recursive: bool = False
) -> list[TreeEntry]:
    """In the folder, or in all below it too."""
    return service.find(session, caller, job_id, revision).tree(path, recursive=recursive)


@router.head(FILE, summary="What a download of a model's file would send", responses=FILE_RESPONSES)
@router.get(
    FILE,
    summary="Download a model's file, or a range of it",
    response_class=StreamingResponse,
    responses=FILE_RESPONSES | REDIRECT,
)
def resolve(
    *,
    job_id: JobId,
    revision: Revision,
    path: str,
    caller: Caller,
    session: ReadSession,
    resources: Shared,
    delivery: Delivery,
) -> Response:
    """As `/v1/artifacts/{id}/content`, and its commit."""
    repository = service.find(session, caller, job_id, revision)
    artifact = repository.file(path, storage=resources.storage)
    response = delivery.of(artifact)
    response.headers.update(_linked(repository.commit, artifact.sha256, artifact.bytes))
    return response


def _linked(commit: str, sha256: str, size: int) -> dict[str, str]:
    """Said by an answer that has the file and by one that sends to the storage for it."""
    return {"X-Repo-Commit": commit, "X-Linked-Etag": quoted(sha256), "X-Linked-Size": str(size)}


@router.head("/{_:path}", include_in_schema=False)
@router.get("/{_:path}", include_in_schema=False)
def nothing_else() -> None:
    """No other model, dataset or space is here."""
    raise RepositoryNotFound
