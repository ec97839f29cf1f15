"""Whether the process lives, and whether it can serve. Needs no key.

Without Redis the service still accepts jobs and keeps its promises later, so that is `degraded`, not down.
"""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.dispatch import redis_answers
from api.errors import responses
from api.refusals import Unready
from api.resources import Shared
from api.store.database import schema_is_current

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
