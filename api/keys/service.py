"""What the key routes do, inside the transaction that the edge opened. Knows no HTTP."""

from sqlalchemy.orm import Session

from api.auth import Principal
from api.keys.schemas import KeyChange, KeyMade, KeyOrder, KeyPage, KeyView
from api.paging import cut, position
from api.refusals import CursorInvalid
from api.store import audit
from api.store import keys as store
from api.store.errors import KeyNotFound
from api.store.models import ApiKey


def make(session: Session, caller: Principal, order: KeyOrder) -> KeyMade:
    """Make a key of the caller's tenant.

    Raises:
        ScopeMissing: The caller lacks a scope that the key is to have.
    """
    for scope in order.scopes:
        caller.check_scope(scope)
    scopes = sorted(set(order.scopes))
    key, plaintext = store.create_key(
        session,
        caller.tenant,
        order.name,
        scopes,
        order.expires_at,
        rate_limit=order.rate_limit,
        **order.quotas.model_dump(),
    )
    audit.record(session, caller, "key.make", key.id, {"name": key.name, "scopes": scopes})
    return KeyMade.of(key, key=plaintext)


def page(session: Session, caller: Principal, *, limit: int, cursor: str | None) -> KeyPage:
    """One page of the tenant's keys, newest first.

    Raises:
        CursorInvalid: The cursor is none of ours.
    """
    last_id = position(cursor, prefix="")
    after = None if last_id is None else _last(session, caller, last_id)
    keys = store.page_of_keys(session, caller.tenant, limit=limit + 1, after=after)
    shown, next_cursor = cut(keys, limit)
    return KeyPage(data=[KeyView.of(key) for key in shown], next_cursor=next_cursor, has_more=next_cursor is not None)


def _last(session: Session, caller: Principal, last_id: str) -> ApiKey:
    try:
        return store.get_key(session, caller.tenant, last_id)
    except KeyNotFound as error:
        raise CursorInvalid("The cursor names no place in the list.") from error


def show(session: Session, caller: Principal, key_id: str) -> KeyView:
    """One key."""
    return KeyView.of(store.get_key(session, caller.tenant, key_id))


def change(session: Session, caller: Principal, key_id: str, wanted: KeyChange) -> KeyView:
    """Give a key another name, end, rate or other quotas."""
    key = store.get_key(session, caller.tenant, key_id)
    said = wanted.model_dump(exclude_unset=True, exclude={"quotas"}) | wanted.quotas.model_dump(exclude_unset=True)
    if wanted.name is None:
        said.pop("name", None)
    for column, value in said.items():
        setattr(key, column, value)
    details = wanted.model_dump(mode="json", exclude_unset=True)
    audit.record(session, caller, "key.change", key.id, details)
    session.flush()
    return KeyView.of(key)


def revoke(session: Session, caller: Principal, key_id: str) -> KeyView:
    """Let a key prove nothing from now on; again, nothing changes."""
    key = store.get_key(session, caller.tenant, key_id)
    if store.revoke_key(session, key.id):
        audit.record(session, caller, "key.revoke", key.id)
        session.refresh(key)
    return KeyView.of(key)
