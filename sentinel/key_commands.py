"""`sentinel keys … | usage | audit`: for those who manage a service's keys. Thin over `sentinel.client`."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from sentinel import tables
from sentinel.access import AsJson, Key, Url, connect
from sentinel.arguments import Most, moment
from sentinel.errors import Fault, SentinelError
from sentinel.showing import show, show_new_secret

group = typer.Typer(help="Manage the keys of your tenant.", no_args_is_help=True)

NONE = "none"
LONGEST_DAYS = 36_500  # behind a century, dates come to their end
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key: the middle part of `sntl_<id>_<secret>`.")]
OfKey = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only of this key.")]
Rate = Annotated[str | None, typer.Option("--rate", help="Requests, like 600/minute; `none` as the service has it.")]
Limit = Annotated[str | None, typer.Option(metavar="NUMBER", help="At most so many; `none` for no limit.")]
Days = Annotated[int | None, typer.Option("--days", min=1, max=LONGEST_DAYS, help="How many days from now it ends.")]


class NoNumber(SentinelError):
    """A limit is neither a number nor `none`."""

    code = "no_number"
    fault = Fault.USER
    next_step = "Give a whole number, or `none` for no limit."


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.add_typer(group, name="keys")
    for command in (usage, audit):
        app.command()(command)


@group.command()
def make(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    *,
    scope: Annotated[list[str], typer.Option(help="What it may do: read, submit, admin; may be repeated.")],
    days: Days = None,
    rate: Rate = None,
    max_queued_jobs: Limit = None,
    max_running_jobs: Limit = None,
    max_gpu_seconds: Limit = None,
    max_stored_bytes: Limit = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    quotas = _quotas(
        max_queued_jobs=max_queued_jobs,
        max_running_jobs=max_running_jobs,
        max_gpu_seconds=max_gpu_seconds,
        max_stored_bytes=max_stored_bytes,
    )
    with connect(url, api_key) as client:
        made = client.make_key(name, scope, expires_at=_in(days), quotas=quotas, rate_limit=_unless_none(rate))
    show_new_secret(made, made.key, tables.key(made), as_json=as_json)


@group.command("list")
def list_keys(*, limit: Most = 50, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List keys, newest first, those that ended too."""
    with connect(url, api_key) as client:
        keys = list(islice(client.list_keys(), limit))
    show(keys, tables.keys(keys), as_json=as_json)


@group.command("show")
def show_key(key_id: KeyId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show one key, without its secret."""
    with connect(url, api_key) as client:
        key = client.get_key(key_id)
    show(key, tables.key(key), as_json=as_json)


@group.command()
def change(
    key_id: KeyId,
    *,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    days: Days = None,
    never_ends: Annotated[bool, typer.Option("--never-ends", help="Take its end away.")] = False,
    rate: Rate = None,
    max_queued_jobs: Limit = None,
    max_running_jobs: Limit = None,
    max_gpu_seconds: Limit = None,
    max_stored_bytes: Limit = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change a key. What is not named stays; what it may do stays for ever."""
    quotas = _quotas(
        max_queued_jobs=max_queued_jobs,
        max_running_jobs=max_running_jobs,
        max_gpu_seconds=max_gpu_seconds,
        max_stored_bytes=max_stored_bytes,
    )
    changes: dict[str, object] = {"quotas": quotas}
    if name is not None:
        changes["name"] = name
    if rate is not None:
        changes["rate_limit"] = _unless_none(rate)
    if never_ends or days is not None:
        changes["expires_at"] = None if never_ends else _in(days)
    with connect(url, api_key) as client:
        key = client.change_key(key_id, **changes)
    show(key, tables.key(key), as_json=as_json)


@group.command()
def revoke(key_id: KeyId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """End a key for good. The jobs that it submitted go on."""
    with connect(url, api_key) as client:
        key = client.revoke_key(key_id)
    show(key, tables.key(key), as_json=as_json)


def usage(
    *,
    key: OfKey = None,
    start: Annotated[
        datetime | None, typer.Option("--from", help="In local time.", show_default="the month's start")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="In local time.", show_default="now")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what each key has taken; needs a key that may manage keys."""
    with connect(url, api_key) as client:
        report = client.usage(key_id=key, start=moment(start), end=moment(end))
    show(report, tables.usage(report), as_json=as_json)


def audit(
    *,
    action: Annotated[str | None, typer.Option(help="Only of this kind, like key.make.")] = None,
    key: OfKey = None,
    limit: Most = 50,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what, newest first; needs a key that may manage keys."""
    with connect(url, api_key) as client:
        entries = list(islice(client.audit(action=action, key_id=key), limit))
    show(entries, tables.audit(entries), as_json=as_json)


def _quotas(**said: str | None) -> dict[str, int | None]:
    """Those that were named."""
    return {name: _number(text) for name, text in said.items() if text is not None}


def _number(text: str) -> int | None:
    if text == NONE:
        return None
    if not text.isdecimal():
        raise NoNumber(f"{text!r} is no number.")
    return int(text)


def _unless_none(rate: str | None) -> str | None:
    return None if rate == NONE else rate


def _in(days: int | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)
