"""The one task: somebody said that there may be work."""

from celery import Celery

from worker.supervisor import Supervisor

WAKE = "sentinel.wake"  # sent by name from `api.dispatch`


def register(app: Celery, supervisor: Supervisor) -> None:
    """Let a wake-up make `supervisor` look into the queue."""
    app.task(supervisor.run_queue, name=WAKE)
