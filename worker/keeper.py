"""Keeps one lease alive from its own threads, and stops the work when the lease cannot be trusted.

Knows the clock rule: the right to write ends, by this host's monotonic clock, one heartbeat before
the database would give the job to somebody else. Knows nothing of what the attempt does.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.store import leases
from api.store.database import UNREACHABLE, Database
from api.store.errors import LeaseLost
from api.store.leases import Claim, Command, Order

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S = 0.5  # pause before a write is tried again on a database that does not answer


class LeaseKeeper:
    """Renews `claim`'s lease every `heartbeat_s` while the context is open.

    Args:
        on_lost: Called once, from a keeper thread, when the lease is gone: must stop the work at once.

    Attributes:
        order: What the service wanted at the last beat.
    """

    def __init__(
        self, database: Database, claim: Claim, *, lease_s: float, heartbeat_s: float, on_lost: Callable[[], None]
    ) -> None:
        self._database = database
        self._claim = claim
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._on_lost = on_lost
        self._deadline = self._deadline_from(time.monotonic())
        self._closed = threading.Event()
        self._lost = threading.Event()
        self.order = Order(Command.CONTINUE, grace_s=0.0)
        # Two threads: a beat that hangs in the network must not hide that time has run out.
        self._threads = [
            threading.Thread(target=copy_context().run, args=(run,), daemon=True) for run in (self._beat, self._watch)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(self._lease_s)

    def check(self) -> None:
        """Raise LeaseLost if the right to write is gone."""
        if self._lost.is_set() or time.monotonic() > self._deadline:
            raise LeaseLost(job_id=self._claim.job_id, token=self._claim.token)

    def write(self, operation: Callable[[Session], T]) -> T:
        """Run one write in a transaction; on a database that does not answer, again until the lease runs out.

        Raises:
            LeaseLost: Nothing was written and nothing may be written any more.
        """
        while True:
            self.check()
            try:
                with self._database.transaction() as session:
                    return operation(session)
            except UNREACHABLE:
                logger.warning("the database does not answer; trying again", exc_info=True)
                self._lost.wait(RETRY_S)

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat_s) and not self._lost.is_set():
            started = time.monotonic()
            try:
                with self._database.transaction() as session:
                    order = leases.heartbeat(session, self._claim, self._lease_s)
            except LeaseLost:
                self._lose("another attempt holds the job, or it has ended")
            except SQLAlchemyError:  # whatever it is, the next beat may reach the database
                logger.warning("a heartbeat failed", exc_info=True)
            else:
                self._deadline = self._deadline_from(started)
                self.order = order

    def _watch(self) -> None:
        while not self._lost.is_set() and not self._closed.wait(min(0.5, self._heartbeat_s)):
            if time.monotonic() > self._deadline:
                self._lose("no heartbeat reached the database in time")

    def _lose(self, reason: str) -> None:
        if self._closed.is_set():
            return
        logger.error("lost the lease: %s", reason)
        self._lost.set()
        self._on_lost()

    def _deadline_from(self, renewed: float) -> float:
        return renewed + self._lease_s - self._heartbeat_s
