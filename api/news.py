"""Tells waiting readers that their job or sweep has changed: a query a tick for all of them, however many wait.

The database is the log, so a change that any process makes is seen here; nobody has to send anything.
"""

import logging
import math
from dataclasses import dataclass, field
from threading import Event

import anyio
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from api.store import jobs, sweeps
from api.store.database import Database

TICK_S = 0.25
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Somebody who knows one version of a job or a sweep."""

    subject_id: str
    version: int
    woken: anyio.Event = field(default_factory=anyio.Event)


class News:
    """Wakes the readers of one process; `run` has to run while they wait. `stopping` lets all of them go."""

    def __init__(self, database: Database, stopping: Event) -> None:
        self._database = database
        self._stopping = stopping
        self._readers: set[_Reader] = set()

    async def changed(self, subject_id: str, version: int, wait_s: float = math.inf) -> None:
        """Return once the job or sweep has another version, after `wait_s` seconds, or when the server stops."""
        reader = _Reader(subject_id, version)
        self._readers.add(reader)
        try:
            with anyio.move_on_after(wait_s):
                if not self._stopping.is_set():
                    await reader.woken.wait()
        finally:
            self._readers.discard(reader)

    async def run(self) -> None:
        """Look for changes until the server stops."""
        while not self._stopping.is_set():
            await anyio.sleep(TICK_S)
            try:
                await self._wake_changed()
            except SQLAlchemyError:
                logger.exception("The database does not answer; readers wait on.")
        for reader in self._readers:
            reader.woken.set()

    async def _wake_changed(self) -> None:
        waiting = list(self._readers)
        if not waiting:
            return
        versions = await to_thread.run_sync(self._versions, {reader.subject_id for reader in waiting})
        for reader in waiting:
            if versions.get(reader.subject_id) != reader.version:
                reader.woken.set()

    def _versions(self, subject_ids: set[str]) -> dict[str, int]:
        of_sweeps = {subject_id for subject_id in subject_ids if subject_id.startswith("swp_")}
        versions: dict[str, int] = {}
        with self._database.reading() as session:
            for ids, ask in ((subject_ids - of_sweeps, jobs.versions), (of_sweeps, sweeps.versions)):
                versions |= ask(session, ids) if ids else {}
        return versions
