"""What webhooks are to be told: written with the event itself, claimed, tried, and settled or tried again.

A message commits with the step that it tells of, so none is lost and none is made up. One process at a time sends it,
under a lease; one whose process dies is sent again, so a webhook may hear a message twice and knows it by its id.
Times come from the database's clock. Knows nothing of HTTP but what an answer's status means.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Select, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from api.store.database import db_now
from api.store.errors import DeliveryNotFound, WebhookDisabled
from api.store.models import Delivery, DeliveryState, Job, Json, Try, Webhook, new_id

DAY_S = 86_400.0
PATIENCE_S = DAY_S  # for one delivery, from when it was asked for
FIRST_WAIT_S = 10.0
WAIT_GROWTH = 3.0
LONGEST_WAIT_S = 21_600.0
JITTER = 0.2  # of a wait, so that what failed together does not come back together
DISABLE_AFTER_S = 5 * DAY_S  # without a success
KEPT_S = 30 * DAY_S
KEPT_TRIES = 50
GONE = 410
TEST = "webhook.test"


class EventType(StrEnum):
    """What a webhook can be told of: that a job is now so."""

    RUNNING = "job.running"
    PAUSED = "job.paused"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


TOLD = frozenset(EventType)


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A process's right to send one delivery.

    Attributes:
        delivery_id: The delivery; also the message's own id, the same in every try.
        token: The fencing number of this claim.
        url: Where to.
        secrets: What signs; the newest first.
        message: What to say.
    """

    delivery_id: str
    token: int
    url: str
    secrets: tuple[str, ...]
    message: Json


def announce(session: Session, job: Job) -> None:
    """Write down whom to tell of the state that the job has just taken."""
    event = f"job.{job.state}"
    if event not in TOLD:
        return
    # Its owner may not delete a webhook before this commits: the job's step must not fail for that.
    enabled = select(Webhook).where(Webhook.tenant == job.tenant, Webhook.enabled)
    hooks = session.scalars(enabled.with_for_update(read=True, key_share=True)).all()
    for hook in hooks:
        if event in hook.events:
            _post(session, hook, event, job.updated_at, _facts(job))


def post_test(session: Session, hook: Webhook) -> Delivery:
    """Tell a webhook that it is there.

    Raises:
        WebhookDisabled: Nothing is sent to it.
    """
    if not hook.enabled:
        raise WebhookDisabled(hook.id)
    return _post(session, hook, TEST, _now(session), {"id": hook.id, "links": {"self": f"/v1/webhooks/{hook.id}"}})


def _facts(job: Job) -> Json:
    """Few: whoever may know more asks for the job."""
    error = job.error or {}
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "attempt": job.attempt,
        "error": {name: error.get(name) for name in ("code", "fault")} if error else None,
        "links": {"self": f"/v1/jobs/{job.id}"},
    }


def _post(session: Session, hook: Webhook, event: str, at: datetime, data: Json) -> Delivery:
    message = {"type": event, "timestamp": at.isoformat(), "data": data}
    delivery = Delivery(id=new_id("dlv"), webhook_id=hook.id, message=message, give_up_at=db_now(PATIENCE_S))
    session.add(delivery)
    session.flush()
    return delivery


def anything_due(session: Session) -> bool:
    """Whether `claim_due` may find something: a question that holds nobody up."""
    return session.scalar(_due()) is not None


def claim_due(session: Session, *, lease_s: float) -> Parcel | None:
    """Take what has been due for longest, of webhooks that nothing is being sent to; None if there is nothing.

    What has come due for a webhook that is disabled ends here.
    """
    locked = _due().with_for_update(skip_locked=True)
    while (delivery := session.scalar(locked, execution_options={"populate_existing": True})) is not None:
        hook = session.get_one(Webhook, delivery.webhook_id)
        if hook.enabled:
            delivery.lease_token += 1
            delivery.lease_expires_at = db_now(lease_s)
            return Parcel(
                delivery_id=delivery.id,
                token=delivery.lease_token,
                url=hook.url,
                secrets=_secrets(hook, _now(session)),
                message=delivery.message,
            )
        delivery.state = DeliveryState.EXHAUSTED
    return None


def _due() -> Select[Delivery]:
    """The delivery that is next, of webhooks that nothing is being sent to: a slow one keeps one sender and no more.

    PostgreSQL looks again at a row that it had to wait for, but not at others: only the row's own lease excludes for
    certain, and two that claim at the same moment may send one webhook two messages.
    """
    free = or_(Delivery.lease_expires_at.is_(None), Delivery.lease_expires_at <= db_now())
    other = aliased(Delivery)
    being_told = exists().where(other.webhook_id == Delivery.webhook_id, other.lease_expires_at > db_now())
    due = select(Delivery).where(Delivery.state == DeliveryState.PENDING, Delivery.next_try_at <= db_now())
    return due.where(free, ~being_told).order_by(Delivery.next_try_at, Delivery.id).limit(1)


def _secrets(hook: Webhook, now: datetime) -> tuple[str, ...]:
    if hook.old_secret is None or hook.old_secret_expires_at is None or hook.old_secret_expires_at <= now:
        return (hook.secret,)
    return (hook.secret, hook.old_secret)


def settle(session: Session, parcel: Parcel, tried: Try, *, wait_s: float = 0.0) -> DeliveryState | None:
    """Keep how a try went, and say when the next one is, if there is to be one.

    Args:
        session: A writing transaction.
        parcel: What was sent.
        tried: How that went. A status of 2xx is a success; 410 disables the webhook; the rest is tried again.
        wait_s: Seconds that the receiver asked to be left alone.

    Returns:
        The delivery's state, or None if it was no longer this process's.
    """
    # The webhook first, as its deletion locks them in this order too.
    hook = session.scalar(
        select(Webhook)
        .where(Webhook.id == select(Delivery.webhook_id).where(Delivery.id == parcel.delivery_id).scalar_subquery())
        .with_for_update(key_share=True)
    )
    mine = (Delivery.id == parcel.delivery_id, Delivery.lease_token == parcel.token)
    delivery = session.scalar(select(Delivery).where(*mine).with_for_update())
    if hook is None or delivery is None:
        return None
    delivery.tries = [*delivery.tries, tried][-KEPT_TRIES:]
    delivery.lease_expires_at = None
    status = tried["status"]
    if status is not None and 200 <= status < 300:
        delivery.state, hook.failing_since = DeliveryState.DELIVERED, None
    else:
        now = _now(session)
        if hook.url == parcel.url:  # else it was led elsewhere meanwhile, and has a new start there
            _count_failure(hook, now, status)
        _put_off(delivery, hook, now, wait_s)
    return delivery.state


def _count_failure(hook: Webhook, now: datetime, status: int | None) -> None:
    hook.failing_since = hook.failing_since or now
    if status == GONE:
        _disable(hook, "The receiver answered 410 Gone.")
    elif now - hook.failing_since >= timedelta(seconds=DISABLE_AFTER_S):
        _disable(hook, f"Nothing has been delivered since {hook.failing_since:%Y-%m-%d %H:%M} UTC.")


def _put_off(delivery: Delivery, hook: Webhook, now: datetime, wait_s: float) -> None:
    delivery.failures += 1
    delivery.next_try_at = now + timedelta(seconds=max(_wait_s(delivery.failures), min(wait_s, LONGEST_WAIT_S)))
    if not hook.enabled or delivery.next_try_at > delivery.give_up_at:
        delivery.state = DeliveryState.EXHAUSTED


def _disable(hook: Webhook, reason: str) -> None:
    hook.enabled, hook.disabled_reason = False, reason


def _wait_s(failures: int) -> float:
    """Longer after every failure, and never quite the same."""
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * WAIT_GROWTH ** (failures - 1))
    return wait_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


def redeliver(session: Session, hook: Webhook, delivery_id: str) -> Delivery:
    """Send a message again, whatever became of it before: at once, and for a day if need be.

    Raises:
        DeliveryNotFound: The webhook has no such delivery.
        WebhookDisabled: Nothing is sent to it.
    """
    known = select(Delivery).where(Delivery.id == delivery_id, Delivery.webhook_id == hook.id).with_for_update()
    delivery = session.scalar(known)
    if delivery is None:
        raise DeliveryNotFound(delivery_id)
    if not hook.enabled:
        raise WebhookDisabled(hook.id)
    delivery.state, delivery.failures = DeliveryState.PENDING, 0
    delivery.next_try_at, delivery.give_up_at = db_now(), db_now(PATIENCE_S)
    session.flush()
    return delivery


def list_deliveries(
    session: Session, hook: Webhook, *, state: DeliveryState | None = None, limit: int, after_id: str | None = None
) -> Sequence[Delivery]:
    """Newest first; `after_id` is the last id of the page before."""
    query = select(Delivery).where(Delivery.webhook_id == hook.id)
    if state is not None:
        query = query.where(Delivery.state == state)
    if after_id is not None:
        query = query.where(Delivery.id < after_id)
    return session.scalars(query.order_by(Delivery.id.desc()).limit(limit)).all()


def forget_old(session: Session) -> None:
    """Let go of what has been settled for long."""
    old = delete(Delivery).where(Delivery.state != DeliveryState.PENDING, Delivery.next_try_at < db_now(-KEPT_S))
    session.execute(old, execution_options={"synchronize_session": False})


def _now(session: Session) -> datetime:
    return session.scalars(select(db_now())).one()
