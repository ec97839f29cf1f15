"""Reads the audit log; what writes it is `api.store.audit.record`. Knows no HTTP."""

from sqlalchemy.orm import Session

from api.audit.schemas import AuditEntryView, AuditPage
from api.auth import Principal
from api.paging import cut, position
from api.store import audit
from api.store.keys import get_key


def page(
    session: Session, caller: Principal, *, action: str | None, key_id: str | None, limit: int, cursor: str | None
) -> AuditPage:
    """One page of the tenant's log, newest first.

    Raises:
        KeyNotFound: The key does not exist, or is somebody else's.
        CursorInvalid: The cursor is none of ours.
    """
    if key_id is not None:
        get_key(session, caller.tenant, key_id)
    after_id = position(cursor, prefix="aud_")
    entries = audit.list_entries(
        session, caller.tenant, action=action, key_id=key_id, limit=limit + 1, after_id=after_id
    )
    shown, next_cursor = cut(entries, limit)
    data = [AuditEntryView.of(entry) for entry in shown]
    return AuditPage(data=data, next_cursor=next_cursor, has_more=next_cursor is not None)
