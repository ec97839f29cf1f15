"""Engines, transactions and the database's clock, alike on SQLite and PostgreSQL.

Knows how each of the two databases must be opened so that a commit is durable and a writer waits
instead of failing. Knows nothing of jobs.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, DateTime, Dialect, Engine, Float, create_engine, event, literal
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

MIGRATIONS = Path(__file__).parents[2] / "migrations"
QUEUE_INDEX = "ix_jobs_queue"  # its columns go in opposite directions
# What is raised by a database that does not answer, or takes no writes for now: PostgreSQL calls a transaction that was
# cut off, and a server that has become a standby, internal errors; the last is a pool whose connections are all taken.
UNREACHABLE = (OperationalError, InterfaceError, InternalError, PoolTimeout)
BUSY_TIMEOUT_MS = 10_000  # longest that a SQLite writer waits for another; its transactions take milliseconds
CONNECT_TIMEOUT_S = 5
LOST_AFTER_S = 10  # of silence; then PostgreSQL and its client let go of each other. Leases last longer
PROBE_S = 3  # between questions whether a silent host is still there


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware and in UTC on both sides, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; SQLite's text holds the UTC digits."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A naive datetime names no point in time; attach a time zone.")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give back an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock, moved by `offset_s` seconds: the only clock that leases and back-offs know."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, offset_s: float = 0.0) -> None:
        super().__init__(literal(float(offset_s), Float))


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    # Six decimals, as SQLAlchemy stores times, so that comparing text compares times.
    offset = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {offset}))"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


class seconds_between(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """How long after one point in time another is."""

    type = Float()
    inherit_cache = True


@compiles(seconds_between, "sqlite")
def _sqlite_seconds(element: seconds_between, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    start, end = (compiler.process(time, **options) for time in element.clauses)
    return f"((julianday({end}) - julianday({start})) * 86400.0)"


@compiles(seconds_between, "postgresql")
def _postgresql_seconds(element: seconds_between, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    start, end = (compiler.process(time, **options) for time in element.clauses)
    return f"extract(epoch FROM {end} - {start})"


class Database:
    """One database, and the only way to open transactions on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One writing transaction: committed at the end, rolled back by any exception.

        On SQLite it takes the write lock at once, so what it reads cannot change before it writes.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: it never waits for a writer."""
        reader = self.engine.execution_options(sqlite_begin="BEGIN DEFERRED")
        with Session(reader, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def create_database(url: str) -> Database:
    """Open the database at an SQLAlchemy URL (`sqlite:///…` or `postgresql://…`).

    Raises:
        ValueError: Neither SQLite in a file nor PostgreSQL.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        ours = {name: value for name, value in _patience().items() if name not in parsed.query}
        engine = _engine(url, connect_args=ours)
        event.listen(engine, "connect", _configure_postgresql)
        return Database(engine)
    if backend != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ValueError(f"Cannot keep jobs in {parsed!r}: use a SQLite file or PostgreSQL.")
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = _engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _engine(url: str, **options: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's
    # Strict JSON on both: PostgreSQL would refuse NaN only at the commit, SQLite never. Errors go to the log, so
    # they name no values.
    serializer = partial(json.dumps, allow_nan=False)
    return create_engine(url, pool_pre_ping=True, json_serializer=serializer, hide_parameters=True, **options)


def _patience() -> dict[str, int | str]:
    """How libpq and the server notice that a network lets nothing through, which by default takes up to two hours.

    Without the last one, a host that goes silent inside a transaction would keep others from its jobs as long.
    """
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": LOST_AFTER_S * 1000,
        "keepalives_idle": PROBE_S,
        "keepalives_interval": PROBE_S,
        "options": f"-c idle_in_transaction_session_timeout={LOST_AFTER_S}s",
    }


def _configure_postgresql(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    # The driver reads times in the session's zone, and east of UTC it cannot read the last hours of the year 9999.
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()  # or the rollback at the end of a transaction would undo it


def _configure_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None  # the driver would delay BEGIN until the first write; `_begin_sqlite` does it
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to a migration, in one transaction. Safe to run from several processes at once."""
    database = create_database(url)
    try:
        with database.engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        database.close()


class Revisions(NamedTuple):
    """Migrations by name: which the schema is at, the newest, and all that this version knows."""

    applied: set[str]
    newest: set[str]
    known: set[str]


def schema_revisions(database: Database) -> Revisions:
    """Where the schema is, and where it could be."""
    with database.reading() as session:
        applied = MigrationContext.configure(session.connection()).get_current_heads()
    scripts = ScriptDirectory.from_config(_alembic_config())
    known = {script.revision for script in scripts.walk_revisions()}
    return Revisions(applied=set(applied), newest=set(scripts.get_heads()), known=known)


def schema_is_current(database: Database) -> bool:
    """Whether the newest migration has been applied."""
    revisions = schema_revisions(database)
    return revisions.applied == revisions.newest


def comparable_on(dialect: str) -> Callable[..., bool]:
    """What of the schema Alembic can compare with the models: from SQLite it cannot read an index's directions back."""

    def comparable(_item: object, name: str | None, kind: str, *_rest: object) -> bool:
        return not (dialect == "sqlite" and kind == "index" and name == QUEUE_INDEX)

    return comparable


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
