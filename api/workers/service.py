"""The living workers. Knows no HTTP."""

from sqlalchemy.orm import Session

from api.settings import Settings
from api.store.placement import living_workers
from api.workers.schemas import WorkerList, WorkerView


def living(session: Session, *, settings: Settings) -> WorkerList:
    """Every worker that has been heard of within the time of a lease."""
    return WorkerList(data=[WorkerView.of(worker) for worker in living_workers(session, settings.lease_s)])
