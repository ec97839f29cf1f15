"""`sentinel webhooks …`: URLs that are told what becomes of jobs. Thin over `sentinel.client`."""

from itertools import islice
from typing import Annotated, Literal

import typer

from sentinel import tables
from sentinel.access import AsJson, Key, Url, connect
from sentinel.arguments import Most
from sentinel.showing import show, show_deleted, show_new_secret

group = typer.Typer(help="Have URLs told what becomes of jobs.", no_args_is_help=True)

ENDS = ("job.succeeded", "job.failed", "job.cancelled")
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of the webhook, `whk_…`.")]
Event = Annotated[
    list[str] | None, typer.Option("--event", help="Like job.running; may be repeated.", show_default="the three ends")
]
Description = Annotated[str | None, typer.Option(help="For people.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.add_typer(group, name="webhooks")


@group.command()
def make(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="`https://…`")],
    *,
    event: Event = None,
    description: Description = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Send nothing to it yet.")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Register a URL. The secret that its messages are signed with is shown this once."""
    with connect(url, api_key) as client:
        made = client.make_webhook(address, event or ENDS, description=description, enabled=not disabled)
    show_new_secret(made, made.secret, tables.webhook(made), as_json=as_json)


@group.command("list")
def list_webhooks(*, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List webhooks, oldest first."""
    with connect(url, api_key) as client:
        hooks = client.list_webhooks()
    show(hooks, tables.webhooks(hooks), as_json=as_json)


@group.command("show")
def show_webhook(webhook_id: WebhookId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show one webhook: since when it fails, and why it is disabled."""
    with connect(url, api_key) as client:
        hook = client.get_webhook(webhook_id)
    show(hook, tables.webhook(hook), as_json=as_json)


@group.command()
def change(
    webhook_id: WebhookId,
    *,
    address: Annotated[str | None, typer.Option(help="Another `https://…`.")] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Instead of those before; may be repeated.")
    ] = None,
    description: Description = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether anything is sent to it.")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change a webhook. What is not named stays."""
    said = {"url": address, "events": event or None, "description": description, "enabled": enabled}
    with connect(url, api_key) as client:
        hook = client.change_webhook(webhook_id, **{name: value for name, value in said.items() if value is not None})
    show(hook, tables.webhook(hook), as_json=as_json)


@group.command()
def delete(webhook_id: WebhookId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Delete a webhook with its deliveries."""
    with connect(url, api_key) as client:
        client.delete_webhook(webhook_id)
    show_deleted(webhook_id, as_json=as_json)


@group.command()
def rotate(
    webhook_id: WebhookId,
    *,
    overlap_s: Annotated[
        float | None,
        typer.Option("--overlap", help="Seconds for which the old secret signs too.", show_default="a day"),
    ] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a webhook a new secret, which is shown this once."""
    with connect(url, api_key) as client:
        hook = client.rotate_webhook_secret(webhook_id, overlap_s=overlap_s)
    show_new_secret(hook, hook.secret, tables.webhook(hook), as_json=as_json)


@group.command("test")
def send_test(webhook_id: WebhookId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Have a `webhook.test` sent; `deliveries` shows what becomes of it."""
    with connect(url, api_key) as client:
        delivery = client.test_webhook(webhook_id)
    show(delivery, tables.deliveries([delivery]), as_json=as_json)


@group.command()
def deliveries(
    webhook_id: WebhookId,
    *,
    state: Annotated[
        Literal["pending", "delivered", "exhausted"] | None, typer.Option(help="Only those in this state.")
    ] = None,
    limit: Most = 50,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what a webhook was told, newest first."""
    with connect(url, api_key) as client:
        found = list(islice(client.deliveries(webhook_id, state=state), limit))
    show(found, tables.deliveries(found), as_json=as_json)


@group.command()
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="Id of the delivery, `dlv_…`.")],
    *,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have a message sent again, whatever became of it."""
    with connect(url, api_key) as client:
        delivery = client.redeliver(webhook_id, delivery_id)
    show(delivery, tables.deliveries([delivery]), as_json=as_json)
