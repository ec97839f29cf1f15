"""`python -m api.keys create`: makes an API key for the database that the environment names."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from api.auth import Scope
from api.settings import Settings
from api.store.database import create_database, schema_is_current
from api.store.keys import create_key

cli = typer.Typer(help="Manage API keys.", no_args_is_help=True)


@cli.callback()
def keys() -> None:
    """Manage API keys."""


@cli.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists and refusals.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs the key sees.")] = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="Repeat for several; read and submit by default.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days until it ends; never by default.")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    database = create_database(Settings().database_url)
    if not schema_is_current(database):
        typer.echo("The database's schema is not this version's: run the migrations first.", err=True)
        raise typer.Exit(code=1)
    with database.transaction() as session:
        _, plaintext = create_key(session, tenant, name, scope or [Scope.READ, Scope.SUBMIT], expires_at)
    database.close()
    typer.echo(plaintext)
    typer.echo("Keep it safe: it cannot be shown again.", err=True)


cli()
