"""Claims jobs and runs one attempt after the other, each in a fresh child from a warm runner.

Knows when a worker may take a job: it is not draining and a runner is ready. What happens inside
an attempt is `attempt`'s business; who calls from how many threads is `app`'s.
"""

import logging
import os
import socket
import threading
from types import TracebackType
from typing import Self

from api.settings import Settings
from api.store import leases
from api.store.database import Database, create_database
from api.store.leases import Claim
from api.store.storage import Storage
from worker.attempt import Attempt
from worker.child import Runner
from worker.metrics import WorkerMetrics
from worker.scratch import Scratch

logger = logging.getLogger(__name__)


class Supervisor:
    """What one worker process does about jobs. Open it before use; closing it ends every child."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._draining = threading.Event()
        self._spawning = threading.Lock()

    def __enter__(self) -> Self:
        self._database: Database = create_database(self._settings.database_url)
        self._storage = Storage(self._settings.storage_uri)
        self._scratch = Scratch(self._settings.home / "scratch")
        self._warm = Runner(self._scratch.new_folder())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain()
        self._warm.close()
        self._scratch.close()
        self._database.close()

    def drain(self) -> None:
        """Take no further job and give back those that run. Returns at once; safe in a signal handler."""
        self._draining.set()

    def run_queue(self) -> None:
        """Claim and run jobs until none is due or the worker drains."""
        while not self._draining.is_set() and self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run one job; false if there is none.

        A runner must be ready before a job is claimed: a worker that cannot run jobs leaves them to others.

        Raises:
            RunnerUnavailable: No runner starts here.
        """
        if not self._warm_runner().wait_ready(self._draining):
            return False
        with self._database.transaction() as session:
            claim = leases.claim_next(session, worker=self._name, lease_s=self._settings.lease_s)
        if claim is None:
            return False
        self._metrics.claim_wait.observe(claim.waited_s)
        with self._metrics.busy.track_inprogress():
            self._attempt(claim)
        return True

    def _attempt(self, claim: Claim) -> None:
        attempt = Attempt(
            claim,
            self._take_runner(),
            settings=self._settings,
            database=self._database,
            storage=self._storage,
            draining=self._draining,
            metrics=self._metrics,
        )
        attempt.run()

    def _warm_runner(self) -> Runner:
        """The runner that waits for the next job; a new one if it has died meanwhile."""
        with self._spawning:
            if not self._warm.alive:
                logger.error("the warm runner has ended:\n%s", self._warm.log_tail())
                self._warm.close()
                self._warm = Runner(self._scratch.new_folder())
            return self._warm

    def _take_runner(self) -> Runner:
        """The warm runner; the next one starts to warm up at once."""
        with self._spawning:
            taken, self._warm = self._warm, Runner(self._scratch.new_folder())
            return taken
