"""The thread that keeps promises when messages get lost: expires leases, rings for jobs left queued.

Every API process may run one; rounds are idempotent. What a round changes is decided in `store.reconciliation`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from sqlalchemy.exc import SQLAlchemyError

from api import dispatch
from api.resources import Resources
from api.store.reconciliation import reconcile

WAKES_PER_ROUND = 16  # how many idle workers one round can bring to work

logger = logging.getLogger(__name__)


@contextmanager
def reconciling(resources: Resources) -> Iterator[None]:
    """Run rounds in a thread until the block ends."""
    stop = Event()
    thread = Thread(target=_run, args=(resources, stop), name="reconciler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _run(resources: Resources, stop: Event) -> None:
    while True:
        _survive_round(resources)
        if stop.wait(resources.settings.reconcile_s):
            return


def _survive_round(resources: Resources) -> None:
    """A database that is away now may be back in the next round."""
    try:
        run_round(resources)
    except SQLAlchemyError:
        logger.exception("The reconciler could not reach the database; it goes on trying.")


def run_round(resources: Resources) -> None:
    """Expire what has expired, then wake workers for what waits; nothing is sent before the commit."""
    with resources.database.transaction() as session:
        waiting = reconcile(session, limit=WAKES_PER_ROUND)
    if waiting:
        dispatch.wake_again(resources.settings.redis_url, times=len(waiting))
