"""The HTTP side of usage."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Caller, needs
from api.errors import responses
from api.parameters import OfKey, Time
from api.resources import ReadSession
from api.store.keys import Scope
from api.usage import service
from api.usage.schemas import UsageReport

router = APIRouter(prefix="/usage", tags=["usage"], dependencies=[needs(Scope.ADMIN)])


@router.get("", summary="What the keys have taken", responses=responses(HTTPStatus.NOT_FOUND))
def report(
    caller: Caller,
    session: ReadSession,
    key_id: OfKey = None,
    start: Annotated[
        Time | None, Query(alias="from", description="Of `gpu_seconds`; the month's start without.")
    ] = None,
    end: Annotated[Time | None, Query(alias="to", description="Of `gpu_seconds`; now without.")] = None,
) -> UsageReport:
    """By key and in all: jobs, time in slots, files. A month is a calendar month in UTC."""
    return service.report(session, caller, key_id=key_id, start=start, end=end)
