"""Webhooks and what they are told, as they cross HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from api.parameters import Body
from api.store.models import Delivery, DeliveryState, Webhook
from api.store.outbox import EventType
from api.store.states import State

URL = "https://hooks.example.org/sentinel"


def _sorted(events: list[EventType]) -> list[EventType]:
    """Each once."""
    return sorted(set(events))


Events = Annotated[list[EventType], Field(min_length=1, max_length=50), AfterValidator(_sorted)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Description = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]


class NewWebhook(Body):
    """A webhook to be."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": URL, "events": ["job.succeeded", "job.failed"], "description": "chat"}]}
    )

    url: Url = Field(
        description="`https://`, on port 443 or 8443 of a host on the internet; of hosts that the operator allows, any."
    )
    events: Events = Field(description="What to tell it of.")
    description: Description | None = Field(None, description="For people.")
    enabled: StrictBool = Field(default=True, description="Whether anything is sent to it.")


class WebhookChanges(Body):
    """What to change of a webhook; what is not named stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url = Field(default=URL, description="As in a new one.")
    events: Events = Field(default=[], description="Instead of those before.")
    description: Description | None = Field(default=None, description="Null takes it away.")
    enabled: StrictBool = Field(
        default=True, description="`true` also gives a webhook a new start that the service disabled."
    )


class WebhookLinks(BaseModel):
    """Where to go from a webhook."""

    self: str
    deliveries: str
    test: str
    rotate_secret: str


class WebhookView(BaseModel):
    """One webhook. Its secret is shown only when it is made."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    url: str
    events: list[EventType]
    description: str | None
    enabled: bool
    disabled_reason: str | None = Field(description="Why the service disabled it; null if it did not.")
    failing_since: datetime | None = Field(description="The first failed try since the last that succeeded.")
    old_secret_expires_at: datetime | None = Field(description="Until when the secret before this one signs too.")
    created_at: datetime
    links: WebhookLinks

    @classmethod
    def of(cls, hook: Webhook, **more: Any) -> Self:  # noqa: ANN401 - fields of subclasses
        """Show a row."""
        here = f"/v1/webhooks/{hook.id}"
        links = WebhookLinks(
            self=here, deliveries=f"{here}/deliveries", test=f"{here}/test", rotate_secret=f"{here}/rotate-secret"
        )
        columns = {name: getattr(hook, name) for name in cls.model_fields if hasattr(hook, name)}
        return cls.model_validate({**columns, "links": links} | more)


class WebhookWithSecret(WebhookView):
    """One webhook with its newest secret, which is not shown again."""

    secret: str = Field(
        description="What its messages are signed with.", examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
    )


class WebhookList(BaseModel):
    """Every webhook of the caller, oldest first."""

    data: list[WebhookView]


class TryView(BaseModel):
    """One request to the webhook."""

    at: datetime
    status: int | None = Field(description="Of the answer; null if none came.")
    milliseconds: int = Field(description="Until the answer, or until none was waited for any more.")
    error: str | None = Field(description="Why no answer came.")


class DeliveryView(BaseModel):
    """One message to one webhook, and what became of it."""

    id: str = Field(description="The `webhook-id` of the message, the same in every try.")
    state: DeliveryState
    message: dict[str, Any] = Field(description="The body.")
    tries: list[TryView] = Field(description="The newest 50.")
    next_try_at: datetime | None = Field(description="Null unless the delivery is `pending`.")
    created_at: datetime

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """Show a row."""
        return cls(
            id=delivery.id,
            state=delivery.state,
            message=delivery.message,
            tries=[TryView.model_validate(tried) for tried in delivery.tries],
            next_try_at=delivery.next_try_at if delivery.state == DeliveryState.PENDING else None,
            created_at=delivery.created_at,
        )


class DeliveryPage(BaseModel):
    """One page of deliveries, newest first."""

    data: list[DeliveryView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool

    @classmethod
    def of(cls, deliveries: Sequence[Delivery], next_cursor: str | None) -> Self:
        """Show rows."""
        data = [DeliveryView.of(delivery) for delivery in deliveries]
        return cls(data=data, next_cursor=next_cursor, has_more=next_cursor is not None)


class MessageError(BaseModel):
    """Why a job failed, in short."""

    code: str
    fault: str


class MessageLinks(BaseModel):
    """Where the whole truth is."""

    self: str = Field(description="Relative to the service.", examples=["/v1/jobs/job_0199b1c6"])


class JobFacts(BaseModel):
    """What a message says of a job."""

    id: str
    name: str | None
    state: State
    attempt: int
    error: MessageError | None
    links: MessageLinks


class JobMessage(BaseModel):
    """The body of a request to a webhook."""

    type: EventType
    timestamp: datetime = Field(description="When it happened.")
    data: JobFacts = Field(description="The job as it was then.")


class TestFacts(BaseModel):
    """What a test says of the webhook."""

    id: str
    links: MessageLinks


class TestMessage(BaseModel):
    """The body of a test."""

    type: Literal["webhook.test"]
    timestamp: datetime
    data: TestFacts
