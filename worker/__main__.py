"""Runs one worker: `python -m worker`. Settings come from the environment (`SENTINEL_*`)."""

import logging
import sys

from celery.signals import setup_logging, worker_shutting_down

from api.settings import Settings
from api.store.errors import StoreError
from api.store.storage import Storage
from sentinel.utils import logs, sandbox
from worker import tasks
from worker.app import create_app
from worker.devices import DriverUnavailable
from worker.metrics import WorkerMetrics, serving
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)


def main() -> int:
    """Listen until a signal comes; returns the exit code."""
    sandbox.hide_secrets()  # from the processes that run experiments
    settings = Settings()
    logs.configure(settings.log_format)
    setup_logging.connect(lambda **_: None, weak=False)  # else Celery would set levels and add handlers
    logging.getLogger("celery").setLevel(logging.WARNING)  # it would say every wake-up twice
    try:
        return _take_jobs(settings)
    except (StoreError, DriverUnavailable) as error:
        logger.error("No job is taken here. %s %s", error.message, error.instance_next_step)  # noqa: TRY400 - the message says it all
        return 1


def _take_jobs(settings: Settings) -> int:
    Storage(settings.storage_uri).check()
    metrics = WorkerMetrics()
    with serving(metrics, settings.metrics_port), Supervisor(settings, metrics) as supervisor:
        app = create_app(settings.redis_url, slots=len(supervisor.slots))
        tasks.register(app, supervisor)
        worker_shutting_down.connect(lambda **_: supervisor.drain(), weak=False)
        listener = app.Worker(without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True)
        listener.start()
    return int(listener.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
