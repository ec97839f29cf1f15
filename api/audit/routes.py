"""The HTTP side of the audit log."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from api.audit import service
from api.audit.schemas import AuditPage
from api.auth import Caller, needs
from api.errors import responses
from api.parameters import Cursor, Limit, OfKey
from api.resources import ReadSession
from api.store.keys import Scope

router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[needs(Scope.ADMIN)])


@router.get("", summary="Who did what, newest first", responses=responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND))
def page(
    *,
    caller: Caller,
    session: ReadSession,
    action: Annotated[
        str | None, Query(description="Of this kind only, like `key.make`.", pattern=r"^[a-z_.]{1,64}$")
    ] = None,
    key_id: OfKey = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AuditPage:
    """Every change in the tenant, written in the transaction that made it. Reading is not in it."""
    return service.page(session, caller, action=action, key_id=key_id, limit=limit, cursor=cursor)
