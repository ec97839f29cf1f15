"""The migrations make what the models describe, on both databases, alone and in a crowd."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from api.store import leases, reconciliation
from api.store.database import comparable_on, create_database, schema_is_current, upgrade
from api.store.models import Base

ROOT = Path(__file__).parents[2]


def test_head_equals_the_models(empty_url):
    upgrade(empty_url)
    database = create_database(empty_url)
    with database.engine.connect() as connection:
        options = {"include_object": comparable_on(connection.dialect.name)}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
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


def test_an_upgrade_from_the_first_revision_loses_no_job_in_flight(empty_url):
    """What is queued is claimed, who holds a lease goes on writing, and what has ended stays as it is."""
    upgrade(empty_url, revision="0001")
    database = create_database(empty_url)
    row = {"tenant": "t", "spec": "{}", "progress": 0, "version": 1, "priority": 0, "max_attempts": 3, "last_seq": 0}
    row |= dict.fromkeys(("created_at", "updated_at", "not_before"), "2026-01-01 00:00:00.000000+00:00")
    with database.engine.begin() as connection:
        for state, token in (("queued", 0), ("running", 1), ("succeeded", 1)):
            values = {**row, "id": f"job_{state}", "state": state, "lease_token": token, "attempt": token}
            values["lease_expires_at"] = "2999-01-01 00:00:00.000000+00:00" if state == "running" else None
            names = ", ".join(values)
            connection.execute(text(f"INSERT INTO jobs ({names}) VALUES (:{', :'.join(values)})"), values)

    upgrade(empty_url)
    with database.transaction() as session:
        assert reconciliation.reconcile(session, limit=100).waiting == ["job_queued"]
        assert leases.claim_next(session, worker="w", lease_s=60).job_id == "job_queued"
        holder = leases.Claim(
            job_id="job_running", token=1, attempt=1, waited_s=0, needs_bytes=None, spec={}, resume=None
        )
        leases.succeed(session, holder, {}, [])
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.execute(text("UPDATE jobs SET version = 2 WHERE id = 'job_succeeded'"))
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
