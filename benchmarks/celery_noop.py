"""What a bare Celery task costs from `delay` to its result, over the same kind of Redis: the floor of any dispatch."""

import tempfile
import time
from pathlib import Path

from celery import Celery
from celery.contrib.testing.worker import start_worker

from worker.redis_server import private_redis


def round_trips_ms(count: int) -> list[float]:
    """One after the other, against a worker that waits for them with the pool that our workers use."""
    with tempfile.TemporaryDirectory() as folder, private_redis(Path(folder) / "redis.log") as redis:
        app = Celery("noop", broker=redis.url, backend=redis.url)

        @app.task(name="noop")
        def noop() -> None:
            pass

        samples = []
        with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False):
            noop.delay().get(timeout=10)
            for _ in range(count):
                began = time.perf_counter()
                noop.delay().get(timeout=10)
                samples.append((time.perf_counter() - began) * 1000)
        return samples
