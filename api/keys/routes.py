"""The HTTP side of keys. All of it is for those who manage them."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from api.auth import Caller, needs
from api.errors import responses
from api.keys import service
from api.keys.schemas import KeyChange, KeyMade, KeyOrder, KeyPage, KeyView
from api.parameters import Cursor, KeyId, Limit
from api.resources import ReadSession, WriteSession
from api.store.keys import Scope

router = APIRouter(prefix="/keys", tags=["keys"], dependencies=[needs(Scope.ADMIN)])

NOT_FOUND = responses(HTTPStatus.NOT_FOUND)


@router.post("", status_code=HTTPStatus.CREATED, summary="Make a key")
def make(order: KeyOrder, caller: Caller, session: WriteSession, response: Response) -> KeyMade:
    """The answer has the only copy of the key. It is of the caller's tenant and may do no more than the caller's."""
    made = service.make(session, caller, order)
    response.headers["Location"] = f"/v1/keys/{made.id}"
    response.headers["Cache-Control"] = "no-store"
    return made


@router.get("", summary="List keys, newest first", responses=responses(HTTPStatus.BAD_REQUEST))
def page(caller: Caller, session: ReadSession, limit: Limit = 50, cursor: Cursor = None) -> KeyPage:
    """Those that have expired or were revoked too."""
    return service.page(session, caller, limit=limit, cursor=cursor)


@router.get("/{key_id}", summary="Show a key", responses=NOT_FOUND)
def show(key_id: KeyId, caller: Caller, session: ReadSession) -> KeyView:
    """Without its secret, which nobody has."""
    return service.show(session, caller, key_id)


@router.patch("/{key_id}", summary="Change a key", responses=NOT_FOUND)
def change(key_id: KeyId, wanted: KeyChange, caller: Caller, session: WriteSession) -> KeyView:
    """What is not named stays as it is; scopes stay for ever."""
    return service.change(session, caller, key_id, wanted)


@router.post("/{key_id}/revoke", summary="Revoke a key", responses=NOT_FOUND)
def revoke(key_id: KeyId, caller: Caller, session: WriteSession) -> KeyView:
    """From now on it is no key; the jobs that it submitted go on."""
    return service.revoke(session, caller, key_id)
