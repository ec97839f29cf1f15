"""A backup that docs/runbook.md takes of a running service, database first and storage second, can be restored."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import update
from sqlalchemy.engine import make_url

from api import collector
from api.store import files, jobs, leases
from api.store.database import create_database, db_now
from api.store.errors import JobNotFound
from api.store.models import Job
from api.store.reconciliation import reconcile
from api.store.storage import Storage, attempt_prefix
from tests.integration.conftest import postgres_database

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def dump(database_url, tmp_path, request) -> Iterator[Callable[[], Callable[[], str]]]:
    """Dump the database; what comes back restores the dump elsewhere, and says where."""
    if database_url.startswith("sqlite"):
        yield lambda: dump_sqlite(database_url, tmp_path / "copy.db")
        return
    server = request.getfixturevalue("postgres_uri")
    with postgres_database(server, "template0") as into:
        yield lambda: dump_postgres(server, database_url, tmp_path / "sentinel.dump", into)


def dump_sqlite(url: str, copy: Path) -> Callable[[], str]:
    connection = sqlite3.connect(make_url(url).database)
    connection.execute("VACUUM INTO ?", [str(copy)])
    connection.close()
    return lambda: f"sqlite:///{copy}"


def dump_postgres(server: str, url: str, path: Path, into: str) -> Callable[[], str]:
    programs = programs_of(server)
    subprocess.run([programs / "pg_dump", "--format=custom", f"--file={path}", url], check=True)

    def restore() -> str:
        options = ["--exit-on-error", "--single-transaction", f"--dbname={into}"]
        subprocess.run([programs / "pg_restore", *options, path], check=True)
        return into

    return restore


def programs_of(server: str) -> Path:
    """Where the running server's own version of PostgreSQL is."""
    with psycopg.connect(server) as connection:
        (folder,) = connection.execute("SHOW data_directory").fetchone()
    pid = int(Path(folder, "postmaster.pid").read_text().split()[0])
    return Path(psutil.Process(pid).exe()).parent


def keep_state(service, claim, content: bytes) -> None:
    source = service.folder / "state"
    source.write_bytes(content)
    stored = Storage(service.settings.storage_uri).put_file(source, attempt_prefix(claim.job_id, claim.token))
    manifest = [{"path": "state.json", "sha256": stored.sha256, "bytes": stored.bytes, "storage_key": stored.key}]
    with service.database.transaction() as session:
        leases.record_checkpoint(session, claim, len(content), manifest)


def test_what_the_database_names_is_in_the_copy_of_the_storage(service, dump, tmp_path):
    done, under_way = service.submit(), service.submit()
    service.finish(service.claim())
    claim = service.claim()
    keep_state(service, claim, b"1")
    restore = dump()
    # The service goes on before the files are copied.
    keep_state(service, claim, b"22")
    service.finish(claim)
    later = service.submit()
    collector.run_round(service.app.state.resources)
    copy = Storage(shutil.copytree(tmp_path / "storage", tmp_path / "copy").as_uri())

    database = create_database(restore())
    with database.transaction() as session:
        for artifact in files.list_artifacts(session, done["id"]):
            copy.download(artifact.storage_key, tmp_path / "fetched", artifact.sha256)
        with pytest.raises(JobNotFound):
            jobs.get_job(session, "ann", later["id"])
        session.execute(update(Job).values(lease_expires_at=db_now(-1)).where(Job.lease_expires_at.is_not(None)))
        assert reconcile(session, limit=9).expired == 1
        session.execute(update(Job).values(not_before=db_now(-1)).where(Job.id == under_way["id"]))
        again = leases.claim_next(session, worker="w", lease_s=60)
    assert (again.job_id, len(again.resume)) == (under_way["id"], 1)
    copy.download(again.resume[0]["storage_key"], tmp_path / "fetched", again.resume[0]["sha256"])
    assert (tmp_path / "fetched").read_bytes() == b"1"
    database.close()
