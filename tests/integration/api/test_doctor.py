"""What the doctor says of installations that are well, and of those that are not: each names the next step."""

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from api.doctor import checks
from api.doctor.__main__ import CHECKS, diagnose
from api.doctor.findings import Status, examine
from api.main import create_app
from api.settings import Settings
from api.store.database import create_database, upgrade
from api.store.placement import advertise
from worker.embedded import as_environment
from worker.redis_server import private_redis

UNSET = {f"SENTINEL_{name.upper()}" for name in Settings.model_fields} | {"SENTINEL_URL", "SENTINEL_API_KEY"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)


def found(settings):
    return {finding.name: finding for finding in examine(settings, CHECKS)}


def run(*arguments, environment):
    command = [sys.executable, "-P", "-m", "sentinel", "doctor", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_healthy_installation_on_sqlite_is_ok_and_left_as_it_was(service, tmp_path):
    slot = {"device": "CPU", "devices": ["auto"], "total_bytes": 2, "free_bytes": 1, "busy": True}
    with service.database.transaction() as session:
        advertise(session, "host:1", [slot])
    with private_redis(tmp_path / "redis.log") as redis:
        settings = service.settings.model_copy(update={"redis_url": redis.url})
        done = run("--json", "--url", service.base_url, environment=as_environment(settings))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert list(status) == [*(check.name for check in CHECKS), "api"]
    # The API itself has no Redis; how full the disk is, no test knows.
    assert status.pop("disk") != "broken"
    assert status.pop("api") == report["status"] == "warning"
    assert set(status.values()) == {"ok"}
    (workers,) = (check["seen"] for check in report["checks"] if check["name"] == "workers")
    assert workers == "1 alive with 1 slot(s) on CPU, 1 busy"
    assert list((tmp_path / "storage").iterdir()) == []


def test_what_is_broken_is_said_in_text_and_by_the_exit_code(tmp_path):
    done = run(environment={"SENTINEL_HOME": str(tmp_path / "home")})
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (row,) = [row for row, line in enumerate(lines) if line.startswith("broken")]
    assert lines[row].split()[1] == "database"
    assert "→ Run `alembic upgrade head`" in lines[row + 1]
    assert not (tmp_path / "home" / "sentinel.db").exists()


@pytest.mark.parametrize(("revision", "at"), [(None, "at none"), ("0006", "at 0006")])
def test_a_missing_migration(empty_url, tmp_path, revision, at):
    if revision is None:
        with closing(create_database(empty_url)) as database:
            database.engine.connect().close()  # which makes the file, on SQLite
    else:
        upgrade(empty_url, revision)
    seen = found(Settings(home=tmp_path, database_url=empty_url))
    assert seen["migrations"].status is Status.BROKEN
    assert at in seen["migrations"].seen
    assert "alembic upgrade head" in seen["migrations"].next_step
    assert seen["database"].status is seen["clock"].status is Status.OK


def test_a_schema_of_a_later_version(database, database_url, tmp_path):
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrations = found(Settings(home=tmp_path, database_url=database_url))["migrations"]
    assert migrations.status is Status.BROKEN
    assert "9999, which this version does not know" in migrations.seen
    assert "does not go back" in migrations.next_step


def test_without_a_worker_jobs_wait(settings):
    assert found(settings)["workers"][1:3] == ("warning", "no worker is alive")


def test_a_dead_redis_is_no_more_than_a_warning(settings):
    redis = found(settings)["redis"]
    assert redis.status is Status.WARNING
    assert "SENTINEL_REDIS_URL" in redis.next_step
    assert "accepted meanwhile" in redis.next_step


def test_a_storage_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "file").touch()
    seen = found(settings.model_copy(update={"storage_uri": (tmp_path / "file" / "storage").as_uri()}))
    assert seen["storage"].status is Status.BROKEN
    assert "SENTINEL_STORAGE_URI" in seen["storage"].next_step
    assert [finding.name for finding in seen.values() if finding.status is Status.BROKEN] == ["storage"]


def test_a_database_that_is_away_is_asked_once_and_keeps_its_password(tmp_path):
    url = "postgresql+psycopg://ann:s3cr3t@127.0.0.1:1/sentinel"
    seen = found(Settings(home=tmp_path, database_url=url))
    assert seen["database"].status is Status.BROKEN
    assert "SENTINEL_DATABASE_URL" in seen["database"].next_step
    assert not {"migrations", "clock"} & set(seen)
    assert "s3cr3t" not in str(seen)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_clocks_that_differ(database, database_url, tmp_path):
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            "AS $$ SELECT pg_catalog.clock_timestamp() + interval '60 seconds' $$"
        )
        connection.exec_driver_sql(
            f"ALTER DATABASE {database.engine.url.database} SET search_path = public, pg_catalog"
        )
    database.close()
    clock = found(Settings(home=tmp_path, database_url=database_url))["clock"]
    assert clock.status is Status.WARNING
    assert " +60." in clock.seen or " +59." in clock.seen
    assert "NTP" in clock.next_step


def test_a_disk_that_is_nearly_full(settings, monkeypatch):
    monkeypatch.setattr(checks, "LITTLE_BYTES", 2**62)
    assert found(settings)["disk"].status is Status.WARNING
    monkeypatch.setattr(checks, "NOTHING_BYTES", 2**62)
    disk = found(settings)["disk"]
    assert disk.status is Status.BROKEN
    assert "Free space" in disk.next_step


def test_a_package_that_is_too_old_or_missing(settings, tmp_path, monkeypatch):
    folder = tmp_path / "sentinel_pruning-9.dist-info"
    folder.mkdir()
    needs = ("httpx>=999", "nowhere-to-be-found; extra == 'api'", "not-for-us; extra == 'gpu'")
    lines = ["Metadata-Version: 2.1", "Name: sentinel-pruning", "Version: 9", "Requires-Python: >=3.99"]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]))
    monkeypatch.syspath_prepend(tmp_path)
    packages = found(settings)["packages"]
    assert packages.status is Status.BROKEN
    for unmet in ("Python >=3.99", "httpx>=999", "nowhere-to-be-found (found none)"):
        assert unmet in packages.seen
    assert "not-for-us" not in packages.seen
    assert "pip install --upgrade" in packages.next_step


def test_a_wrong_setting_is_named_without_its_value(monkeypatch):
    monkeypatch.setenv("SENTINEL_PORT", "s3cr3t")
    (finding,) = diagnose()
    assert (finding.name, finding.status) == ("settings", Status.BROKEN)
    assert "SENTINEL_PORT" in finding.seen
    assert "s3cr3t" not in finding.seen


def test_a_setting_that_nobody_reads_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SENTINEL_HOME", str(tmp_path))
    monkeypatch.setenv("SENTINEL_DATABSE_URL", "postgresql://db")
    first = next(diagnose())
    assert (first.name, first.status) == ("settings", Status.WARNING)
    assert "SENTINEL_DATABSE_URL" in first.seen
    assert "SENTINEL_HOME" not in first.seen


def test_an_api_that_is_not_ready_or_not_there(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("SENTINEL_HOME", str(tmp_path / "none"))
    with serve(create_app(Settings(home=tmp_path, redis_url=f"redis+socket://{tmp_path}/none.sock"))) as base_url:
        *_, unready = diagnose(base_url)
    *_, absent = diagnose(base_url)
    assert (unready.status, unready.next_step) == (Status.BROKEN, "Run the migrations.")
    assert absent.status is Status.BROKEN
    assert "--url" in absent.next_step


def test_what_is_no_api_of_ours(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("SENTINEL_HOME", str(tmp_path / "none"))
    other = FastAPI()
    other.get("/ready/readyz")(lambda: {"ready": True})
    with serve(other) as base_url:
        found = [list(diagnose(url))[-1] for url in (base_url, f"{base_url}/ready", "nowhere", "http://[")]
    assert {finding.status for finding in found} == {Status.BROKEN}
    assert all("--url" in finding.next_step for finding in found)


def test_where_there_is_no_service_the_command_says_so():
    code = "import sys; sys.modules['alembic'] = None; sys.argv[1:] = ['doctor']; import sentinel.cli as c; c.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'sentinel-pruning[api]'" in done.stderr
