"""Whether the process lives, whether it can serve, and numbers for those who watch it. Needs no key.

Without Redis the service still accepts jobs and keeps its promises later, so that is `degraded`, not down.
"""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from api.dispatch import redis_answers
from api.errors import responses
from api.refusals import Unready
from api.resources import ReadSession, Shared
from api.store.database import schema_is_current
from api.store.statistics import read_statistics

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Jobs are accepted; `degraded` means that workers learn of them late."""

    status: Literal["ok", "degraded"]
    redis: bool


@router.get("/livez", summary="Is the process alive?")
def livez() -> Liveness:
    """Looks at nothing else, so that a database that is down restarts no process."""
    return Liveness()


@router.get("/readyz", summary="Can jobs be accepted?", responses=responses(HTTPStatus.SERVICE_UNAVAILABLE))
def readyz(resources: Shared) -> Readiness:
    """Asks the database, its migrations, and Redis.

    Raises:
        Unready: The schema is not the newest.
    """
    if not schema_is_current(resources.database):
        raise Unready("The database's schema is not this version's.", next_step="Run the migrations.")
    reachable = redis_answers(resources.settings.redis_url)
    return Readiness(status="ok" if reachable else "degraded", redis=reachable)


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={HTTPStatus.OK: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(session: ReadSession, resources: Shared) -> Response:
    """Of all tenants together; keep it inside your network."""
    text = resources.metrics.text(read_statistics(session))
    return Response(text, media_type=CONTENT_TYPE_LATEST)
