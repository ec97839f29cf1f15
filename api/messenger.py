"""Tells webhooks what happened. Every API process may do it; a lease keeps two from sending the same message at once.

Several senders run beside each other, so that slow webhooks hold up neither the requests nor all of the others. What is
sent when is decided in `store.outbox`, and where it may go in `outbound`.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import NamedTuple

from api.outbound import Answer, Outbound, TargetRefused, TargetUnreachable
from api.resources import Resources
from api.rounds import repeating
from api.store import outbox
from api.store.models import DeliveryState, Try
from api.store.outbox import Parcel
from api.webhooks import signing

SENDERS = 4
LEASE_S = 120.0  # longer than a look-up, three connections and an answer may take
ASKING_TO_WAIT = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

logger = logging.getLogger(__name__)


class Sent(NamedTuple):
    """How a try went, and for how long the receiver asked to be left alone."""

    tried: Try
    wait_s: float


@contextmanager
def sending(resources: Resources) -> Iterator[None]:
    """Have the senders run until the block ends."""
    with ExitStack() as senders:
        for number in range(SENDERS):
            one = repeating(
                f"messenger {number + 1}", partial(run_round, resources), every_s=resources.settings.webhooks_s
            )
            senders.enter_context(one)
        yield


def run_round(resources: Resources) -> None:
    """Send what is due, one message after the other, until nothing is."""
    while not resources.stopping.is_set() and _send_next(resources):
        pass


def _send_next(resources: Resources) -> bool:
    """Send one message, if one is due. No transaction is open while it is under way."""
    with resources.database.reading() as session:
        due = outbox.anything_due(session)
    if not due:
        return False
    with resources.database.transaction() as session:
        parcel = outbox.claim_due(session, lease_s=LEASE_S)
    if parcel is None:
        return False
    sent = _send(resources.outbound, parcel)
    with resources.database.transaction() as session:
        state = outbox.settle(session, parcel, sent.tried, wait_s=sent.wait_s)
    if state is not None:
        resources.metrics.webhook_tries.labels(OUTCOMES[state]).inc()
    return True


OUTCOMES = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "failed",
    DeliveryState.EXHAUSTED: "exhausted",
}


def _send(outbound: Outbound, parcel: Parcel) -> Sent:
    body = json.dumps(parcel.message, separators=(",", ":")).encode()
    at, started = datetime.now(UTC), time.perf_counter()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Sentinel/{version('sentinel-pruning')}",
        **signing.headers(parcel.delivery_id, int(at.timestamp()), body, parcel.secrets),
    }
    status, wait_s, error = None, 0.0, None
    try:
        answer = outbound.post(parcel.url, body, headers)
        status, wait_s = answer.status, asked_wait_s(answer, at)
    except (TargetRefused, TargetUnreachable) as failure:
        error = failure.message
    except Exception:  # what is not settled is sent again as soon as the lease ends, for ever
        logger.exception("%s could not be sent", parcel.delivery_id)
        error = "The service could not send it, and has logged why."
    milliseconds = round((time.perf_counter() - started) * 1000)
    return Sent(Try(at=at.isoformat(), status=status, milliseconds=milliseconds, error=error), wait_s)


def asked_wait_s(answer: Answer, now: datetime) -> float:
    """Retry-After of an overloaded receiver: seconds or a date (RFC 9110 §10.2.3); what is neither counts as none."""
    after = answer.headers.get("retry-after", "")
    if answer.status not in ASKING_TO_WAIT or not after:
        return 0.0
    if after.isdecimal():
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except (ValueError, OverflowError):
        return 0.0
    return (date.replace(tzinfo=date.tzinfo or UTC) - now) / timedelta(seconds=1)
