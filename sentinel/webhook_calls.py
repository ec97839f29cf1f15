"""What can be asked of a service about webhooks."""

from collections.abc import AsyncGenerator, Sequence

from sentinel.endpoint import path_of
from sentinel.replies import Delivery, Page, Webhook, WebhookWithSecret
from sentinel.transport import Calls


class WebhookCalls(Calls):
    """URLs that are told what becomes of jobs."""

    async def make_webhook(
        self, url: str, events: Sequence[str], *, description: str | None = None, enabled: bool = True
    ) -> WebhookWithSecret:
        """Register a URL; the answer has the only copy of the secret that its messages are signed with.

        Args:
            url: `https://…`.
            events: What to tell it of, like `job.succeeded`.
            description: For people.
            enabled: Whether anything is sent to it.

        Raises:
            OutcomeUnknown: The connection broke before the answer.
        """
        document = {"url": url, "events": list(events), "description": description, "enabled": enabled}
        return await self._session.make_once(WebhookWithSecret, "/v1/webhooks", json=document)

    async def get_webhook(self, webhook_id: str) -> Webhook:
        """One webhook, without its secret."""
        return await self._session.read(Webhook, path_of("webhooks", webhook_id))

    async def list_webhooks(self) -> tuple[Webhook, ...]:
        """Every webhook, oldest first."""
        return (await self._session.read(Page[Webhook], "/v1/webhooks")).data

    async def change_webhook(self, /, webhook_id: str, **changes: object) -> Webhook:
        """Change a webhook's `url`, `events`, `description` or `enabled`; what is not named stays."""
        return await self._session.change(Webhook, path_of("webhooks", webhook_id), changes)

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook with its deliveries."""
        await self._session.remove(path_of("webhooks", webhook_id))

    async def rotate_webhook_secret(self, webhook_id: str, *, overlap_s: float | None = None) -> WebhookWithSecret:
        """Give a webhook a new secret, of which the answer has the only copy.

        Args:
            webhook_id: The webhook.
            overlap_s: Seconds for which the old one signs too, 0 if it is known to others; a day without.

        Raises:
            OutcomeUnknown: The connection broke before the answer. Rotate again.
        """
        path = path_of("webhooks", webhook_id, "rotate-secret")
        return await self._session.make_once(WebhookWithSecret, path, overlap_s=overlap_s)

    async def test_webhook(self, webhook_id: str) -> Delivery:
        """Have a `webhook.test` sent; `deliveries` tells what becomes of it."""
        return await self._session.ask(Delivery, path_of("webhooks", webhook_id, "test"))

    def deliveries(
        self, webhook_id: str, *, state: str | None = None, page_size: int | None = None
    ) -> AsyncGenerator[Delivery, None]:
        """What a webhook was told, newest first, fetched page by page."""
        path = path_of("webhooks", webhook_id, "deliveries")
        return self._session.pages(Page[Delivery], path, state=state, limit=page_size)

    async def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Have a message sent again at once, whatever became of it."""
        return await self._session.ask(
            Delivery, path_of("webhooks", webhook_id, "deliveries", delivery_id, "redeliver")
        )
