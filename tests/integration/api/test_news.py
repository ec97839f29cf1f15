"""Who waits for a job hears of its changes, of no others, and all who wait cost one query a tick."""

import threading
from contextlib import asynccontextmanager

import anyio
import pytest
from sqlalchemy import event

from api.news import TICK_S, News
from api.store import jobs
from api.store.database import create_database


@pytest.fixture
def two_jobs(database):
    with database.transaction() as session:
        return [jobs.accept_job(session, tenant="t", spec={}, max_attempts=1).job.id for _ in range(2)]


@asynccontextmanager
async def told(database):
    """News that run, and what stops them."""
    stopping = threading.Event()
    news = News(database, stopping)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(news.run)
        yield news, stopping
        stopping.set()


def cancel(database, job_id):
    with database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=0)


def test_many_readers_hear_of_their_own_job_and_cost_one_query_a_tick(database, two_jobs):
    queries = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: queries.append(said[2]))
    heard = []

    async def read(news, job_id, number):
        await news.changed(job_id, 1)
        heard.append((job_id, number))

    async def run():
        async with told(database) as (news, _), anyio.create_task_group() as readers:
            for number in range(100):
                readers.start_soon(read, news, two_jobs[number % 2], number)
            await anyio.sleep(4 * TICK_S)
            asked = sum("jobs.version" in query for query in queries)
            assert 1 <= asked <= 5
            await anyio.to_thread.run_sync(cancel, database, two_jobs[0])
            await anyio.sleep(4 * TICK_S)
            assert {job_id for job_id, _ in heard} == {two_jobs[0]}
            assert len(heard) == 50
            await anyio.to_thread.run_sync(cancel, database, two_jobs[1])

    anyio.run(run)
    assert len(heard) == 100


def test_a_change_that_came_before_the_reader_is_not_missed(database, two_jobs):
    async def run():
        async with told(database) as (news, _):
            with anyio.fail_after(10):
                await news.changed(two_jobs[0], 0)

    anyio.run(run)


def test_a_stop_lets_everybody_go_now_and_later(database, two_jobs):
    async def run():
        async with told(database) as (news, stopping):
            async with anyio.create_task_group() as readers:
                readers.start_soon(news.changed, two_jobs[0], 1)
                await anyio.sleep(0)
                stopping.set()
            with anyio.fail_after(10):
                await news.changed(two_jobs[0], 1)

    anyio.run(run)


def test_readers_wait_on_while_the_database_is_away(database, two_jobs, tmp_path, monkeypatch):
    without_tables = create_database(f"sqlite:///{tmp_path / 'empty.db'}")

    async def run():
        async with told(database) as (news, _), anyio.create_task_group() as readers:
            with monkeypatch.context() as broken:
                broken.setattr(database, "engine", without_tables.engine)
                readers.start_soon(news.changed, two_jobs[0], 0)
                await anyio.sleep(3 * TICK_S)
            with anyio.fail_after(10):
                await news.changed(two_jobs[0], 0)

    anyio.run(run)
    without_tables.close()
