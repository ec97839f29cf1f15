"""Claims jobs for free slots and runs one attempt after the other, each in a fresh child from a warm runner.

Knows when a worker may take a job: it is not draining, a slot is free and its runner is ready. Somebody rings when
there may be work; a worker that hears nothing looks by itself. What happens inside an attempt is `attempt`'s business.
"""

import logging
import os
import socket
import threading
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from sqlalchemy.exc import SQLAlchemyError

from api.settings import Settings
from api.store import leases, placement
from api.store.database import Database, create_database
from api.store.leases import Claim
from api.store.storage import Storage
from sentinel.utils import logs
from worker.attempt import Attempt
from worker.child import RunnerUnavailable, spawn
from worker.devices import Device, discover
from worker.fork_server import ForkServer
from worker.metrics import WorkerMetrics
from worker.scratch import Scratch
from worker.slots import Slot, offer_of, report_of, reserve

logger = logging.getLogger(__name__)


class _Placed(NamedTuple):
    """A claim and the slot that it was made for."""

    claim: Claim
    slot: Slot
    memory_bytes: int


class Supervisor:
    """What one worker process does about jobs. Open it before use; closing it ends every child."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._draining = threading.Event()
        self._claiming = threading.Lock()
        self._lookers: list[threading.Thread] = []
        self._fork_server = ForkServer()
        self._patrol = threading.Thread(target=self._keep_looking, name="patrol")
        self.slots: list[Slot] = []
        self._idle_before = 0  # slots that were free at the last look while work waited for them

    def __enter__(self) -> Self:
        with ExitStack() as opened:  # closes what is open already if a signal interrupts this
            self._database: Database = create_database(self._settings.database_url)
            opened.callback(self._database.close)
            self._storage = Storage(self._settings.storage_uri)
            self._scratch = Scratch(self._settings.home / "scratch")
            opened.callback(self._scratch.close)
            opened.callback(self._close_slots)
            for device in discover():
                self.slots += [self._new_slot(device) for _ in range(self._settings.slots)]
            opened.callback(self._stop_looking)
            self._patrol.start()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _stop_looking(self) -> None:
        self.drain()
        if self._patrol.is_alive():
            self._patrol.join()  # first: it starts the others
        for looker in self._lookers:
            looker.join()

    def _close_slots(self) -> None:
        self._fork_server.close()  # first: its runners end with it, even those that it has not forked yet
        for slot in self.slots:
            slot.close()

    def _new_slot(self, device: Device) -> Slot:
        start = self._fork_server.start if device.forks else spawn
        return Slot(device, self._settings.cache, self._scratch.new_folder, start)

    def drain(self) -> None:
        """Take no further job and give back those that run. Returns at once; safe in a signal handler."""
        self._draining.set()

    def run_queue(self) -> None:
        """Claim and run jobs until none is due that fits a free slot, or the worker drains.

        Raises:
            RunnerUnavailable: No job was found for the slots that have a runner, and one has none.
        """
        while (placed := self._claim()) is not None:
            try:
                copy_context().run(self._attempt, placed)
            finally:
                placed.slot.give_back()

    def _claim(self) -> _Placed | None:
        """A job for the first free slot that one fits, which is taken from now on."""
        unavailable: RunnerUnavailable | None = None
        for slot in self.slots:
            if not self._draining.is_set() and slot.take():
                placed = None
                try:
                    placed = self._claim_for(slot)
                except RunnerUnavailable as error:  # the next slot may be on another device
                    unavailable = error
                finally:
                    if placed is None:
                        slot.give_back()
                if placed is not None:
                    return placed
        if unavailable is not None:
            raise unavailable
        return None

    def _claim_for(self, slot: Slot) -> _Placed | None:
        """A runner must be ready before a job is claimed: a worker that cannot run jobs leaves them to others."""
        if not slot.wait_ready(self._draining):
            return None
        # One at a time: what one claim promises of a device's memory, the next must not offer.
        with self._claiming:
            offer = offer_of(slot, self.slots)
            with self._database.transaction() as session:
                claim = leases.claim_next(session, worker=self._name, lease_s=self._settings.lease_s, offer=offer)
            if claim is None:
                return None
            slot.needs_bytes = claim.needs_bytes or 0
        self._metrics.claim_wait.observe(claim.waited_s)
        return _Placed(claim, slot, offer.memory_bytes)

    def _attempt(self, placed: _Placed) -> None:
        claim = placed.claim
        logs.bind(
            request_id=claim.request_id,
            trace_id=claim.trace_id,
            job_id=claim.job_id,
            attempt=claim.attempt,
            token=claim.token,
        )
        attempt = Attempt(
            claim,
            placed.slot.take_runner(),
            memory_bytes=placed.memory_bytes,
            reserve=partial(self._reserve, placed.slot),
            settings=self._settings,
            database=self._database,
            storage=self._storage,
            draining=self._draining,
            metrics=self._metrics,
        )
        with self._metrics.busy.track_inprogress():
            attempt.run()

    def _reserve(self, slot: Slot, needs_bytes: int) -> bool:
        """For a job whose needs its first runner found out: no claim in between may offer the same memory."""
        with self._claiming:
            return reserve(slot, self.slots, needs_bytes)

    def _keep_looking(self) -> None:
        """Until the worker drains: say that it lives, and look for work that nobody rang for."""
        while not self._draining.wait(self._settings.heartbeat_s):
            try:
                self._look()
            except Exception:  # a worker without a patrol would seem dead and still run jobs
                logger.exception("a look for work failed; looking again later")
        try:
            with self._database.transaction() as session:
                placement.withdraw(session, self._name)
        except SQLAlchemyError:
            logger.warning("could not sign off; the service will notice", exc_info=True)

    def _look(self) -> None:
        """Advertise, and put the free slots to work if a job waits that they could run."""
        self._lookers = [thread for thread in self._lookers if thread.is_alive()]
        free = [slot for slot in self.slots if not slot.busy]
        with self._database.transaction() as session:
            placement.advertise(session, self._name, [report_of(slot, self.slots) for slot in self.slots])
            idle = [slot for slot in free if placement.work_waits(session, offer_of(slot, self.slots))]
        self._metrics.idle_while_waiting.inc(min(len(idle), self._idle_before) * self._settings.heartbeat_s)
        self._idle_before = len(idle)
        for _ in idle:
            looker = threading.Thread(target=self._run_queue_unasked, name="looker")
            looker.start()
            self._lookers.append(looker)

    def _run_queue_unasked(self) -> None:
        try:
            self.run_queue()
        except Exception:  # the next look comes with the next heartbeat
            logger.exception("a look for work ended")
