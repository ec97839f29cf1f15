"""The HTTP side of webhooks, and the requests that they get, for the description."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.auth import Caller
from api.errors import responses
from api.parameters import Cursor, DeliveryId, Limit, WebhookId
from api.resources import ReadSession, Shared, WriteSession
from api.store.models import DeliveryState
from api.store.outbox import DAY_S
from api.webhooks import service
from api.webhooks.schemas import (
    DeliveryPage,
    DeliveryView,
    JobMessage,
    NewWebhook,
    TestMessage,
    WebhookChanges,
    WebhookList,
    WebhookView,
    WebhookWithSecret,
)

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
messages = APIRouter(tags=["webhooks"])

LONGEST_OVERLAP_S = 7 * DAY_S
NOT_FOUND = responses(HTTPStatus.NOT_FOUND)
TAKEN: dict[str, Any] = {
    "status_code": HTTPStatus.NO_CONTENT,
    "responses": {
        "2XX": {"description": "The message is taken."},
        "410": {"description": "The webhook is disabled."},
        "default": {"description": "The message is sent again later."},
    },
}
NOT_SENT = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


@router.post("", status_code=HTTPStatus.CREATED, summary="Register a webhook", responses=responses(HTTPStatus.CONFLICT))
def create(
    new: NewWebhook, caller: Caller, session: WriteSession, resources: Shared, response: Response
) -> WebhookWithSecret:
    """The secret is in this answer and in no other. Of what happens from now on the webhook is told.

    The address that the URL's name stands for is looked up and checked whenever something is sent.
    """
    created = service.create(session, caller, new, guard=resources.outbound.guard)
    response.headers["Location"] = created.links.self
    return created


@router.get("", summary="List webhooks")
def page(caller: Caller, session: ReadSession) -> WebhookList:
    """Every webhook of the caller, oldest first."""
    return service.page(session, caller)


@router.get("/{webhook_id}", summary="Show a webhook", responses=NOT_FOUND)
def show(webhook_id: WebhookId, caller: Caller, session: ReadSession) -> WebhookView:
    """Also says since when it fails, and why the service has disabled it."""
    return service.show(session, caller, webhook_id)


@router.patch("/{webhook_id}", summary="Change a webhook", responses=NOT_FOUND)
def change(
    webhook_id: WebhookId, changes: WebhookChanges, caller: Caller, session: WriteSession, resources: Shared
) -> WebhookView:
    """What the body does not name stays. A webhook that is disabled is told nothing, also not later."""
    return service.change(session, caller, webhook_id, changes, guard=resources.outbound.guard)


@router.delete("/{webhook_id}", status_code=HTTPStatus.NO_CONTENT, summary="Delete a webhook", responses=NOT_FOUND)
def delete(webhook_id: WebhookId, caller: Caller, session: WriteSession) -> None:
    """Its deliveries go with it."""
    service.delete(session, caller, webhook_id)


@router.post("/{webhook_id}/rotate-secret", summary="Give a webhook a new secret", responses=NOT_FOUND)
def rotate_secret(
    webhook_id: WebhookId,
    caller: Caller,
    session: WriteSession,
    overlap_s: Annotated[
        float,
        Query(description="Seconds in which the old one signs too; 0 if it is known.", ge=0, le=LONGEST_OVERLAP_S),
    ] = DAY_S,
) -> WebhookWithSecret:
    """The new secret is in this answer and in no other. Until the old one has expired, messages have two signatures."""
    return service.rotate_secret(session, caller, webhook_id, overlap_s=overlap_s)


@router.post(
    "/{webhook_id}/test", status_code=HTTPStatus.ACCEPTED, summary="Send a webhook something", responses=NOT_SENT
)
def test(webhook_id: WebhookId, caller: Caller, session: WriteSession) -> DeliveryView:
    """A `webhook.test`, sent like any other message; what becomes of it is in its deliveries."""
    return service.test(session, caller, webhook_id)


@router.get(
    "/{webhook_id}/deliveries",
    summary="What a webhook was told, newest first",
    responses=responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
)
def deliveries(
    *,
    webhook_id: WebhookId,
    caller: Caller,
    session: ReadSession,
    state: DeliveryState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """Every message with its tries. What is settled is kept for 30 days."""
    return service.deliveries(session, caller, webhook_id, state=state, limit=limit, cursor=cursor)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    summary="Send a message again",
    responses=NOT_SENT,
)
def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, caller: Caller, session: WriteSession) -> DeliveryView:
    """At once, whatever became of it before, and with the same `webhook-id`; if it fails, for another day."""
    return service.redeliver(session, caller, webhook_id, delivery_id)


@messages.post("job", summary="A job has changed its state", **TAKEN)
def job_message(message: JobMessage) -> None:
    """Sent to webhooks that are told of it, signed by the Standard Webhooks scheme."""


@messages.post("test", summary="Somebody has asked for a test", **TAKEN)
def test_message(message: TestMessage) -> None:
    """Sent to a webhook whatever it is told of."""
