"""Tells a container's health check whether its worker can take jobs: `python -m worker.health`.

Looks at the worker's lock and at the database. Redis is left out: without it a worker still
finishes its job, and restarting it would not bring Redis back.
"""

import sys

from sqlalchemy.exc import SQLAlchemyError

from api.settings import Settings
from api.store.database import create_database, schema_is_current
from worker.scratch import is_in_use


def complaint(settings: Settings) -> str | None:
    """What keeps the worker of this installation from working; None if nothing does."""
    if not is_in_use(settings.home / "scratch"):
        return "No worker runs here."
    database = create_database(settings.database_url)
    try:
        return (
            None if schema_is_current(database) else "The database's schema is not this version's; run the migrations."
        )
    except SQLAlchemyError as error:
        return f"The database does not answer: {error}"
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(complaint(Settings()))
