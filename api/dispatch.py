"""Wakes workers: sends a Celery task by name, over Redis.

The database is the truth and a wake-up carries nothing, so one too many or one too few is harmless:
a Redis failure is logged, never an error to the user, and the reconciler rings again.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

WAKE_TASK = "sentinel.wake"
QUEUE = "celery"  # Celery's default queue, which the worker listens to
TIMEOUT_S = 0.5  # longest wait for each answer of Redis; the job is stored already
UNREACHABLE = (OperationalError, RedisError)

logger = logging.getLogger(__name__)


def wake(redis_url: str) -> None:
    """Ask one worker to look for a queued job. Returns within about a second, whatever Redis does."""
    try:
        with _connected(redis_url) as connection:
            _send(redis_url, connection)
    except UNREACHABLE as error:
        logger.warning("Redis does not answer; the reconciler will wake a worker later: %s", error)


def wake_again(redis_url: str, *, times: int) -> None:
    """Ring for jobs left queued, unless earlier wake-ups still wait: busy workers must not pile them up."""
    try:
        with _connected(redis_url) as connection:
            waiting = connection.default_channel.client.llen(QUEUE)
            for _ in range(0 if waiting else times):
                _send(redis_url, connection)
    except UNREACHABLE as error:
        logger.warning("Redis does not answer; %d job(s) or more wait for the next round: %s", times, error)


def redis_answers(redis_url: str) -> bool:
    """Whether Redis is there."""
    try:
        with _connected(redis_url):
            return True
    except UNREACHABLE:
        return False


@contextmanager
def _connected(redis_url: str) -> Iterator[Connection]:
    """A fresh connection: a pooled one would fail once after every restart of Redis.

    Raises:
        OperationalError: Redis does not answer in time.
    """
    with _celery(redis_url).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        yield connection


def _send(redis_url: str, connection: Connection) -> None:
    _celery(redis_url).send_task(WAKE_TASK, queue=QUEUE, connection=connection, retry=False, ignore_result=True)


@lru_cache
def _celery(redis_url: str) -> Celery:
    app = Celery("sentinel", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        broker_transport_options={"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S},
    )
    return app
