"""Who did what and when. Written in the transaction of the act itself: neither is there without the other.

Every room records its own acts with `record`; what they are called is theirs: a noun, a dot, a verb.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.store.models import AuditEntry, Json, new_id


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts.

    Attributes:
        tenant: On whose things.
        key_id: With which key; None for the operator, who needs none.
        request_id: Of the request that asked.
        client: The address from which it came.
    """

    tenant: str
    key_id: str | None = None
    request_id: str | None = None
    client: str | None = None


def record(session: Session, actor: Actor, action: str, target: str, details: Json | None = None) -> None:
    """Write down that `actor` did `action`, like `key.revoke`, to the thing with the id `target`."""
    who = {field.name: getattr(actor, field.name) for field in fields(Actor)}
    session.add(AuditEntry(id=new_id("aud"), action=action, target=target, details=details, **who))


def list_entries(
    session: Session,
    tenant: str,
    *,
    action: str | None = None,
    key_id: str | None = None,
    limit: int,
    after_id: str | None = None,
) -> Sequence[AuditEntry]:
    """Newest first; `after_id` is the last id of the page before."""
    query = select(AuditEntry).where(AuditEntry.tenant == tenant)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if key_id is not None:
        query = query.where(AuditEntry.key_id == key_id)
    if after_id is not None:
        query = query.where(AuditEntry.id < after_id)
    return session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)).all()
