"""The migrations make what the models describe, on both databases, alone and in a crowd."""

import os
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from api.store.database import create_database, schema_is_current, upgrade
from api.store.models import Base

ROOT = Path(__file__).parents[2]


def test_head_equals_the_models(empty_url):
    upgrade(empty_url)
    database = create_database(empty_url)
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    database.close()
    assert differences == []


def test_schema_is_current_only_after_the_upgrade(empty_url):
    database = create_database(empty_url)
    assert not schema_is_current(database)
    upgrade(empty_url)
    assert schema_is_current(database)
    upgrade(empty_url)
    assert schema_is_current(database)
    database.close()


def test_processes_that_migrate_at_once_all_succeed(empty_url):
    command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"]
    environment = os.environ | {"SENTINEL_DATABASE_URL": empty_url}
    crowd = [subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    complaints = [process.communicate()[1].decode() for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0], complaints
    database = create_database(empty_url)
    assert schema_is_current(database)
    database.close()
