"""Refusals as clients of the Hub's protocol understand them: beside the problem document, two headers."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import of_sentinel_error
from api.hub.refusals import EntryNotFound, RepositoryNotFound, RevisionNotFound
from api.refusals import KeyRequired, NoCheckpoint, ScopeMissing
from api.store.errors import ArtifactExpired, JobNotFound
from sentinel.errors import SentinelError

# The client's words. A repository that cannot be read is one that is not there; its message says why.
CODES: Mapping[type[SentinelError], str] = {
    KeyRequired: "RepoNotFound",
    ScopeMissing: "GatedRepo",
    RepositoryNotFound: "RepoNotFound",
    JobNotFound: "RepoNotFound",
    NoCheckpoint: "RepoNotFound",
    ArtifactExpired: "RepoNotFound",
    RevisionNotFound: "RevisionNotFound",
    EntryNotFound: "EntryNotFound",
}
# By these very words clients tell a key that proves nothing from none.
BAD_KEY = "Invalid credentials in Authorization header"


class HubRoute(APIRoute):
    """A route that names what it refuses in the protocol's words too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()

        async def answer_in_their_words(request: Request) -> Response:
            try:
                return await answer(request)
            except tuple(CODES) as error:
                refusal = of_sentinel_error(request, error)
                refusal.headers.update(_headers(request, error))
                return refusal

        return answer_in_their_words


def _headers(request: Request, error: SentinelError) -> dict[str, str]:
    if isinstance(error, KeyRequired) and "Authorization" in request.headers:
        return {"X-Error-Message": BAD_KEY}
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    message = f"{error.message} {error.instance_next_step}"
    # What is no ASCII cannot be in a header; it is whole in the document.
    named = {"X-Error-Code": code, "X-Error-Message": message.encode("ascii", "replace").decode()}
    # By it clients remember that a file is not there.
    return named | ({"X-Repo-Commit": error.commit} if isinstance(error, EntryNotFound) else {})
