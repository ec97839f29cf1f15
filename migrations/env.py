"""Runs migrations: on the connection that a program hands over, or from the command line on the settings' database."""

from alembic import context
from sqlalchemy import Connection, func, select

from api.settings import Settings
from api.store.database import comparable_on, create_database
from api.store.models import Base

LOCK = 0x73656E74  # any fixed number: PostgreSQL's name for the lock that one migrating process holds


def run(connection: Connection) -> None:
    """Bring one connection to the asked revision, in its transaction; other processes wait, then find it done."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        include_object=comparable_on(connection.dialect.name),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_command_line() -> None:
    """Open the database of the settings, which `alembic.ini` does not repeat."""
    database = create_database(Settings().database_url)
    with database.engine.begin() as connection:
        run(connection)
    database.close()


handed_over = context.config.attributes.get("connection")
if handed_over is None:
    run_from_command_line()
else:
    run(handed_over)
