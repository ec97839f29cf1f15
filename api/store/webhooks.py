"""A tenant's webhooks: make, read, change, delete, and the secrets that sign what they are told.

Every function works inside the caller's transaction and sees only the tenant's own rows. Knows nothing of sending.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import TooManyWebhooks, WebhookNotFound
from api.store.keys import lock_tenant
from api.store.models import Webhook, new_id

LIMIT = 20  # of one tenant: every step of a job looks at all of them
SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
SECRET_BYTES = 32


def create_webhook(
    session: Session, tenant: str, *, url: str, events: Sequence[str], description: str | None, enabled: bool
) -> Webhook:
    """Store a webhook with a new secret.

    Raises:
        TooManyWebhooks: The tenant has `LIMIT`.
    """
    lock_tenant(session, tenant)
    count = session.scalar(select(func.count()).where(Webhook.tenant == tenant))
    if count is not None and count >= LIMIT:
        raise TooManyWebhooks(LIMIT)
    hook = Webhook(
        id=new_id("whk"),
        tenant=tenant,
        url=url,
        events=list(events),
        description=description,
        enabled=enabled,
        secret=_new_secret(),
    )
    session.add(hook)
    session.flush()
    return hook


def list_webhooks(session: Session, tenant: str) -> Sequence[Webhook]:
    """Oldest first."""
    return session.scalars(select(Webhook).where(Webhook.tenant == tenant).order_by(Webhook.id)).all()


def get_webhook(session: Session, tenant: str, webhook_id: str, *, locked: bool = False) -> Webhook:
    """One webhook; `locked` keeps others from changing it until the transaction ends.

    Raises:
        WebhookNotFound: It does not exist, or is somebody else's: the caller cannot tell which.
    """
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.tenant == tenant)
    hook = session.scalar(query.with_for_update(key_share=True) if locked else query)
    if hook is None:
        raise WebhookNotFound(webhook_id)
    return hook


def change_webhook(session: Session, tenant: str, webhook_id: str, changes: Mapping[str, object]) -> Webhook:
    """Set columns. A webhook that is enabled, or leads elsewhere, has a new start.

    Raises:
        WebhookNotFound: As in `get_webhook`.
    """
    hook = get_webhook(session, tenant, webhook_id, locked=True)
    for column, value in changes.items():
        setattr(hook, column, value)
    if "url" in changes or "enabled" in changes:
        hook.failing_since = None
        hook.disabled_reason = None
    session.flush()
    return hook


def rotate_secret(session: Session, tenant: str, webhook_id: str, *, overlap_s: float) -> Webhook:
    """Give a webhook a new secret; the old one signs beside it for `overlap_s`, an older one no more.

    Raises:
        WebhookNotFound: As in `get_webhook`.
    """
    hook = get_webhook(session, tenant, webhook_id, locked=True)
    hook.old_secret, hook.old_secret_expires_at = (hook.secret, db_now(overlap_s)) if overlap_s else (None, None)
    hook.secret = _new_secret()
    session.flush()
    session.refresh(hook)
    return hook


def delete_webhook(session: Session, tenant: str, webhook_id: str) -> None:
    """Let go of a webhook with its deliveries.

    Raises:
        WebhookNotFound: As in `get_webhook`.
    """
    session.delete(get_webhook(session, tenant, webhook_id))


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
