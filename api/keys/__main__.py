"""`python -m api.keys`: makes, lists and revokes API keys of the database that the settings name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from api.settings import RATE, Settings
from api.store import audit, keys
from api.store.audit import Actor
from api.store.database import create_database, schema_is_current
from api.store.keys import LARGEST_AMOUNT, LARGEST_COUNT, LONGEST_DAYS, Scope

COUNT = {"min": 0, "max": LARGEST_COUNT}
AMOUNT = {"min": 0, "max": LARGEST_AMOUNT}
cli = typer.Typer(help="Manage API keys.", no_args_is_help=True)


@cli.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists and refusals.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs the key sees.")] = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="Repeat for several; read and submit by default.")] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=LONGEST_DAYS, help="Days until it ends; never by default.")
    ] = None,
    max_queued_jobs: Annotated[int | None, typer.Option(help="Jobs that may wait.", **COUNT)] = None,
    max_running_jobs: Annotated[int | None, typer.Option(help="Jobs that may run at once.", **COUNT)] = None,
    max_gpu_seconds: Annotated[int | None, typer.Option(help="Time in slots in a calendar month.", **AMOUNT)] = None,
    max_stored_bytes: Annotated[int | None, typer.Option(help="What its jobs' files may take.", **AMOUNT)] = None,
    rate_limit: Annotated[str | None, typer.Option(help="Requests, like 600/minute; else as configured.")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    if rate_limit is not None and not re.fullmatch(RATE, rate_limit):
        raise typer.BadParameter(f"{rate_limit!r} is no rate like 600/minute.", param_hint="--rate-limit")
    scopes = scope or [Scope.READ, Scope.SUBMIT]
    with _writing() as session:
        key, plaintext = keys.create_key(
            session,
            tenant,
            name,
            scopes,
            expires_at,
            max_queued_jobs=max_queued_jobs,
            max_running_jobs=max_running_jobs,
            max_gpu_seconds=max_gpu_seconds,
            max_stored_bytes=max_stored_bytes,
            rate_limit=rate_limit,
        )
        audit.record(session, Actor(tenant=tenant), "key.make", key.id, {"name": name, "scopes": scopes})
    typer.echo(plaintext)
    typer.echo("Keep it safe: it cannot be shown again.", err=True)


@cli.command(name="list")
def list_keys() -> None:
    """Print id, tenant, name, scopes and state of every key. The id is the middle part of `sntl_<id>_<secret>`."""
    with _writing() as session:
        for key in keys.list_keys(session):
            ends = f"expires {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
            state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else ends
            typer.echo("\t".join((key.id, key.tenant, key.name, ",".join(key.scopes), state)))


@cli.command()
def revoke(key_id: Annotated[str, typer.Argument(help="As `list` prints it.")]) -> None:
    """Let a key prove nothing from now on."""
    with _writing() as session:
        tenant = keys.revoke_key(session, key_id)
        if tenant is not None:
            audit.record(session, Actor(tenant=tenant), "key.revoke", key_id)
    if tenant is None:
        typer.echo(f"There is no valid key {key_id!r}: `python -m api.keys list` shows all.", err=True)
        raise typer.Exit(code=1)
    typer.echo(f"{key_id} is revoked.")


@contextmanager
def _writing() -> Iterator[Session]:
    database = create_database(Settings().database_url)
    if not schema_is_current(database):
        typer.echo("The database's schema is not this version's: run the migrations first.", err=True)
        raise typer.Exit(code=1)
    with database.transaction() as session:
        yield session
    database.close()


if __name__ == "__main__":
    cli()
