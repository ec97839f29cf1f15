"""The checks of the database: does it answer, is its schema ours, does its clock agree, whom does it know."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import make_url, select, text

from api.doctor.findings import Seen, Status
from api.settings import Settings
from api.store.database import Database, create_database, db_now, schema_revisions
from api.store.placement import living_workers

CONNECT_TIMEOUT_S = 5
TOLERATED = timedelta(seconds=2)
MIGRATE = "Run `alembic upgrade head` where alembic.ini lies (with docker compose: `docker compose run --rm migrate`)."
VERSIONS = {"sqlite": ("SQLite", "SELECT sqlite_version()"), "postgresql": ("PostgreSQL", "SHOW server_version")}


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    """The database, waited for only a moment."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "postgresql":
        url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
    database = create_database(url.render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.close()


def database(settings: Settings) -> Seen:
    """Opens a writing transaction, which on SQLite takes the lock: a file that cannot be written shows."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return Seen(Status.BROKEN, f"there is no file {url.database}", MIGRATE)
    with _opened(settings) as opened, opened.transaction() as session:
        name, query = VERSIONS[opened.engine.dialect.name]
        version = session.scalar(text(query))
    return Seen(Status.OK, f"{name} {version} at {url.render_as_string(hide_password=True)}")


def migrations(settings: Settings) -> Seen:
    """The schema must be the one that this version was written for."""
    with _opened(settings) as opened:
        applied, newest, known = schema_revisions(opened)
    at, needed = (" and ".join(sorted(revisions)) or "none" for revisions in (applied, newest))
    if applied == newest:
        return Seen(Status.OK, f"the schema is at {at}, the newest")
    if applied - known:
        step = "Run the version of Sentinel that migrated it, or a later one; a schema does not go back."
        return Seen(Status.BROKEN, f"the schema is at {at}, which this version does not know", step)
    return Seen(Status.BROKEN, f"the schema is at {at}, and this version needs {needed}", MIGRATE)


def clock(settings: Settings) -> Seen:
    """Leases follow the database's clock alone; what users and file systems say of time does not."""
    with _opened(settings) as opened, opened.reading() as session:
        session.execute(text("SELECT 1"))  # so that connecting takes no part in what is measured
        before = datetime.now(UTC)
        theirs = session.execute(select(db_now())).scalar_one()
        after = datetime.now(UTC)
    ahead = theirs - (before + (after - before) / 2)
    said = f"the database's clock is {ahead.total_seconds():+.3f} s off this host's"
    if abs(ahead) <= TOLERATED + (after - before) / 2:
        return Seen(Status.OK, said)
    step = "Synchronise both clocks (NTP). Leases do not mind; start times, deadlines and the age of files do."
    return Seen(Status.WARNING, said, step)


def workers(settings: Settings) -> Seen:
    """Workers say that they live in the database; without any, jobs are accepted and wait."""
    with _opened(settings) as opened, opened.reading() as session:
        living = living_workers(session, settings.lease_s)
        slots = [slot for worker in living for slot in worker.slots]
    if not living:
        return Seen(
            Status.WARNING, "no worker is alive", "Start one: `python -m worker`, or `docker compose up worker`."
        )
    devices = ", ".join(sorted({slot["device"] for slot in slots}))
    busy = sum(slot["busy"] for slot in slots)
    return Seen(Status.OK, f"{len(living)} alive with {len(slots)} slot(s) on {devices}, {busy} busy")
