"""What the webhook routes do, inside the transaction that the edge opened. Knows no HTTP, and sends nothing."""

from sqlalchemy.orm import Session

from api.auth import Principal
from api.outbound import Guard, TargetRefused
from api.paging import cut, position
from api.store import audit, outbox
from api.store import webhooks as store
from api.store.models import DeliveryState
from api.webhooks.schemas import (
    DeliveryPage,
    DeliveryView,
    NewWebhook,
    WebhookChanges,
    WebhookList,
    WebhookView,
    WebhookWithSecret,
)
from sentinel.errors import FieldError


def create(session: Session, caller: Principal, new: NewWebhook, *, guard: Guard) -> WebhookWithSecret:
    """Make a webhook and its secret.

    Raises:
        TargetRefused: Nothing may be sent to its URL.
        TooManyWebhooks: The caller has as many as are allowed.
    """
    _check_url(new.url, guard)
    hook = store.create_webhook(session, caller.tenant, **new.model_dump())
    audit.record(session, caller, "webhook.make", hook.id, {"url": hook.url})
    return WebhookWithSecret.of(hook, secret=hook.secret)


def _check_url(url: str, guard: Guard) -> None:
    """For the user's sake: what counts is the check when something is sent."""
    try:
        guard.check_url(url)
    except TargetRefused as refused:
        mistake = FieldError(pointer="/url", code=refused.code, message=refused.message)
        raise TargetRefused(refused.message, errors=[mistake]) from refused


def page(session: Session, caller: Principal) -> WebhookList:
    """All of the caller's."""
    return WebhookList(data=[WebhookView.of(hook) for hook in store.list_webhooks(session, caller.tenant)])


def show(session: Session, caller: Principal, webhook_id: str) -> WebhookView:
    """One webhook."""
    return WebhookView.of(store.get_webhook(session, caller.tenant, webhook_id))


def change(
    session: Session, caller: Principal, webhook_id: str, changes: WebhookChanges, *, guard: Guard
) -> WebhookView:
    """Change what is named.

    Raises:
        TargetRefused: Nothing may be sent to the new URL.
    """
    named = changes.model_dump(exclude_unset=True)
    if "url" in named:
        _check_url(named["url"], guard)
    hook = store.change_webhook(session, caller.tenant, webhook_id, named)
    audit.record(session, caller, "webhook.change", webhook_id, named)
    return WebhookView.of(hook)


def delete(session: Session, caller: Principal, webhook_id: str) -> None:
    """Let go of a webhook and its deliveries."""
    store.delete_webhook(session, caller.tenant, webhook_id)
    audit.record(session, caller, "webhook.delete", webhook_id)


def rotate_secret(session: Session, caller: Principal, webhook_id: str, *, overlap_s: float) -> WebhookWithSecret:
    """Give a webhook a new secret; the old one signs for `overlap_s` more."""
    hook = store.rotate_secret(session, caller.tenant, webhook_id, overlap_s=overlap_s)
    audit.record(session, caller, "webhook.rotate_secret", webhook_id)
    return WebhookWithSecret.of(hook, secret=hook.secret)


def test(session: Session, caller: Principal, webhook_id: str) -> DeliveryView:
    """Have something sent.

    Raises:
        WebhookDisabled: Nothing is sent to it.
    """
    return DeliveryView.of(outbox.post_test(session, store.get_webhook(session, caller.tenant, webhook_id)))


def deliveries(
    session: Session,
    caller: Principal,
    webhook_id: str,
    *,
    state: DeliveryState | None,
    limit: int,
    cursor: str | None,
) -> DeliveryPage:
    """One page of what a webhook was told, newest first.

    Raises:
        CursorInvalid: The cursor is none of ours.
    """
    hook = store.get_webhook(session, caller.tenant, webhook_id)
    after_id = position(cursor, prefix="dlv_")
    found = outbox.list_deliveries(session, hook, state=state, limit=limit + 1, after_id=after_id)
    return DeliveryPage.of(*cut(found, limit))


def redeliver(session: Session, caller: Principal, webhook_id: str, delivery_id: str) -> DeliveryView:
    """Have a message sent again.

    Raises:
        WebhookDisabled: Nothing is sent to it.
    """
    hook = store.get_webhook(session, caller.tenant, webhook_id)
    return DeliveryView.of(outbox.redeliver(session, hook, delivery_id))
