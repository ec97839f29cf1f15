"""The Celery side: a real Redis, a real worker process, wake-ups as the API sends them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from api import dispatch
from api.settings import Settings
from api.store import jobs
from api.store.database import create_database, upgrade
from api.store.models import Job
from api.store.states import State
from sentinel.spec import parse_spec
from worker.embedded import as_environment
from worker.redis_server import private_redis

REFUSED = {"model": "/somewhere/else", "prune": {"target": {"sparsity": 0.5}}}


@pytest.fixture
def redis(tmp_path):
    with private_redis(tmp_path / "redis.log") as server:
        yield server


@pytest.fixture
def settings(tmp_path, redis):
    settings = Settings(home=tmp_path / "home", redis_url=redis.url)
    upgrade(settings.database_url)
    return settings


@pytest.fixture
def database(settings):
    database = create_database(settings.database_url)
    yield database
    database.close()


@pytest.fixture
def worker(settings, tmp_path):
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "worker.log").open("w"))
        command = [sys.executable, "-P", "-m", "worker"]
        process = subprocess.Popen(command, env=os.environ | as_environment(settings), stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield process


@pytest.fixture
def run_one(settings, database):
    """Submit a job that fails as soon as a child looks at it, wake a worker, wait for the end."""

    def run():
        spec = parse_spec(REFUSED).model_dump(mode="json")
        with database.transaction() as session:
            job_id = jobs.accept_job(session, tenant="t", spec=spec, max_attempts=1).job.id
        deadline = time.monotonic() + 90
        while state_of(job_id) != State.FAILED:
            assert time.monotonic() < deadline, state_of(job_id)
            dispatch.wake_again(settings.redis_url, times=1)
            time.sleep(0.1)

    def state_of(job_id):
        with database.reading() as session:
            return session.get(Job, job_id).state

    return run


def test_a_worker_survives_its_broker_s_restart_and_ends_with_its_child_on_a_signal(
    worker, run_one, redis, tmp_path, wait_until_gone
):
    run_one()
    redis.process.kill()
    redis.process.wait()
    with private_redis(tmp_path / "redis.log") as second:
        # The worker knows the old place only.
        link = Path(redis.url.removeprefix("redis+socket://"))
        link.unlink(missing_ok=True)
        link.symlink_to(second.url.removeprefix("redis+socket://"))
        run_one()
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert children
    assert wait_until_gone(children) == []


def test_a_worker_ends_promptly_without_a_broker(worker, redis, tmp_path):
    log = tmp_path / "worker.log"
    redis.process.kill()
    redis.process.wait()
    while "Cannot connect" not in log.read_text():
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_ctrl_c_ends_a_worker_that_is_still_warming_up(worker, tmp_path, wait_until_gone):
    while not (children := psutil.Process(worker.pid).children(recursive=True)):
        assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    worker.wait(10)
    assert wait_until_gone(children) == []
