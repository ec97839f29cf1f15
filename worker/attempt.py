"""One try of one job: hand it to a runner, relay what it says, publish what it made.

However an attempt goes, it ends in exactly one write under its token, or in none when the lease
is lost. Knows the order of things; how to keep a lease, move files or talk to a child is elsewhere.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import get_token
from sqlalchemy.orm import Session

from api.settings import Settings
from api.store import leases
from api.store.database import Database
from api.store.errors import (
    DeadlineExceeded,
    LeaseLost,
    ObjectDamaged,
    ObjectMissing,
    StorageUnavailable,
    StoreError,
)
from api.store.files import NewArtifact
from api.store.leases import Claim, Command, Recordable
from api.store.models import ManifestFile, Outcome
from api.store.sources import inputs_of, named_in
from api.store.storage import Storage
from sentinel.errors import DiskFull
from sentinel.events import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    MessageLogged,
    NeedsEstimated,
    Phase,
    PhaseStarted,
    Progressed,
)
from sentinel.locating import MODEL
from sentinel.needs import DoesNotFit
from sentinel.spec import parse_spec
from sentinel.utils import logs
from sentinel.utils.disk import shortage, telling_full_disk
from worker.child import Runner
from worker.failures import (
    AttemptBroken,
    AttemptFailed,
    PublishingFailed,
    RunnerCrashed,
    RuntimeExceeded,
    backoff_s,
)
from worker.keeper import LeaseKeeper
from worker.log_copy import LogCopy
from worker.metrics import PhaseClock, WorkerMetrics
from worker.runner import Assignment
from worker.shelf import Shelf

logger = logging.getLogger(__name__)

POLL_S = 0.2  # longest delay until a cancel, a drain or the time limit is noticed
BATCH = 200  # events per transaction
DOES_NOT_FIT = "does not fit here"


class _Ending(NamedTuple):
    """How an attempt ends, and the one write that says so."""

    outcome: Outcome
    write: Callable[[Session], object]


class _Cancelled(Exception):
    """The job's owner wants it stopped."""


class _Released(Exception):
    """The job goes back unharmed: it was to be put aside, this worker goes away, or has too little memory for it."""


class Attempt:
    """Runs `claim` on `runner` with so much memory. The runner's folder belongs to the attempt from now on.

    `reserve` is told what the job will take of its device's memory, once that is known; false if it cannot have it.
    """

    def __init__(
        self,
        claim: Claim,
        runner: Runner,
        *,
        memory_bytes: int,
        reserve: Callable[[int], bool],
        settings: Settings,
        database: Database,
        storage: Storage,
        draining: threading.Event,
        metrics: WorkerMetrics,
    ) -> None:
        self._claim = claim
        self._runner = runner
        self._memory_bytes = memory_bytes
        self._reserve = reserve
        self._settings = settings
        self._draining = draining
        self._metrics = metrics
        self._phases = PhaseClock(metrics.phases)
        self._keeper = LeaseKeeper(
            database,
            claim,
            lease_s=settings.lease_s,
            heartbeat_s=settings.heartbeat_s,
            on_lost=runner.kill,
        )
        self._shelf = Shelf(storage, claim, check=self._check)
        self._deadline = time.monotonic() + claim.spec["limits"]["max_runtime_s"]
        self._asked, self._asked_at = Command.CONTINUE, 0.0  # what it was last asked for, and when it heard of it
        self._has_just_kept = False  # a cycle, so that nothing would be lost now

    def run(self) -> None:
        """Bring the attempt to its end, whatever that is."""
        logger.info("the attempt begins")
        try:
            ending = self._keeping_the_lease()
            # The last beat is over, so that it cannot meet a job that has ended.
            self._keeper.write(ending.write)
            self._metrics.attempts.labels(ending.outcome.value).inc()
            logger.info("the attempt has ended: %s", ending.outcome.value)
        except LeaseLost:
            self._metrics.fenced.inc()
            logger.warning("the lease is lost; nothing more is written")
        finally:
            self._runner.close()

    def _keeping_the_lease(self) -> _Ending:
        try:
            with self._keeper, LogCopy(self._runner.log, self._shelf.store_log):
                return self._ending()
        except LeaseLost:
            raise
        except DiskFull as full:
            return self._failure(AttemptFailed(full.as_dict()))
        except Exception as error:  # else the job would wait for its lease to run out, and nobody knew why
            logger.exception("the attempt broke")
            return self._failure(AttemptFailed(AttemptBroken(error).as_dict()))

    @telling_full_disk()
    def _ending(self) -> _Ending:
        """Do the work."""
        try:
            result = self._follow()
            succeed = partial(leases.succeed, claim=self._claim, result=result, artifacts=self._publish())
            return _Ending(Outcome.SUCCEEDED, succeed)
        except _Cancelled:
            return _Ending(Outcome.CANCELLED, partial(leases.finish_cancel, claim=self._claim))
        except _Released as reason:
            return _Ending(Outcome.RELEASED, partial(leases.release, claim=self._claim, reason=str(reason)))
        except AttemptFailed as failure:
            return self._failure(failure)
        finally:
            self._phases.stop()
            self._runner.kill()

    def _failure(self, failure: AttemptFailed) -> _Ending:
        error = failure.report(log_tail=self._runner.log_tail())
        logger.warning("the attempt failed: %s", error["message"])
        retry_in = backoff_s(self._claim.attempt)
        fail = partial(leases.fail, claim=self._claim, error=error, retry=failure.retry, backoff_s=retry_in)
        return _Ending(Outcome.FAILED, fail)

    def _follow(self) -> dict[str, Any]:
        """Relay the child's events until it ends; returns its result."""
        self._runner.assign(self._assignment())
        result: dict[str, Any] | None = None
        ended = False
        while not ended:
            events, ended = self._runner.next_events(wait_s=POLL_S, limit=BATCH)
            self._relay(events)
            result = next((event.result for event in events if isinstance(event, Finished)), result)
            self._check()
            self._check_runtime()
        exit_code = self._runner.wait()
        if result is None:
            raise AttemptFailed(RunnerCrashed(exit_code).as_dict())
        return result

    def _assignment(self) -> Assignment:
        spec = parse_spec(self._claim.spec)
        return Assignment(
            spec=self._claim.spec,
            resume=self._resume(),
            fetched=self._fetch_sources(),
            allowed_roots=self._settings.model_roots,
            limits=self._settings.model_limits,
            hub_token=get_token() if spec.needs_network else None,
            memory_bytes=self._memory_bytes,
            log_fields=logs.bound(),
        )

    def _resume(self) -> Path | None:
        if self._claim.resume is None:
            return None
        try:
            return self._shelf.fetch(self._claim.resume, self._runner.folder / "resume")
        except (ObjectMissing, ObjectDamaged) as lost:
            text = f"The saved state cannot be used, so the run starts from the beginning: {lost.message}"
            self._record([MessageLogged(level="warning", text=text)])
            return None
        except StorageUnavailable as away:
            raise AttemptFailed(away.as_dict()) from away

    def _fetch_sources(self) -> dict[str, Path]:
        """Bring what the spec names by ids; the child finds plain files."""
        if not any(named_in(self._claim.spec)):
            return {}
        try:
            wanted = self._keeper.write(partial(inputs_of, job_id=self._claim.job_id))
            return {use: self._fetch_source(use, files) for use, files in wanted.items()}
        except LeaseLost:
            raise
        except StoreError as error:
            raise AttemptFailed(error.as_dict()) from error

    def _fetch_source(self, use: str, files: Sequence[ManifestFile]) -> Path:
        """A model's folder, or the one file of a text."""
        folder = self._shelf.fetch(files, self._runner.folder / "sources" / use)
        return folder if use == MODEL else folder / files[0]["path"]

    def _relay(self, events: Sequence[Event]) -> None:
        """Record events in their order; a checkpoint is stored where it stands among them."""
        pending: list[Recordable] = []
        for event in events:
            match event:
                case CheckpointSaved(step=int()) if event is not self._runner.newest_state:
                    pass  # storing takes longer than the run needs for the next one
                case CheckpointSaved():
                    self._record(pending)
                    pending = []
                    self._keep_state(event)
                case Failed():
                    self._record(pending)
                    if event.error["code"] == DoesNotFit.code:
                        raise _Released(DOES_NOT_FIT)
                    raise AttemptFailed(event.error)
                case Finished():
                    pass
                case _:
                    pending.append(event)
        self._record(pending)

    def _record(self, events: list[Recordable]) -> None:
        for event in events:
            if isinstance(event, PhaseStarted):
                self._phases.start(event.phase.value)
        if events:
            self._keeper.write(partial(leases.record_events, claim=self._claim, events=events))
        needs = [event.memory_bytes for event in events if isinstance(event, NeedsEstimated)]
        if not all(self._reserve(needed) for needed in needs):
            raise _Released(DOES_NOT_FIT)

    def _keep_state(self, saved: CheckpointSaved) -> None:
        """Store a state so that a later attempt can resume; older ones are of no more use here."""
        directory = self._runner.output / saved.directory
        with _storing():
            manifest = self._shelf.store_state(directory)
        self._keeper.write(
            partial(leases.record_checkpoint, claim=self._claim, cycle=saved.cycle, step=saved.step, manifest=manifest)
        )
        for older in directory.parent.iterdir():
            if older.name < directory.name:
                shutil.rmtree(older)
        self._has_just_kept = True
        self._check()
        self._has_just_kept = False

    def _publish(self) -> list[NewArtifact]:
        self._record([PhaseStarted(phase=Phase.PUBLISHING), Progressed(fraction=1.0)])
        with _storing():
            return self._shelf.store_output(self._runner.output, self._runner.log)

    def _check(self) -> None:
        self._keeper.check()
        self._check_order()
        if self._draining.is_set():
            raise _Released("drain")

    def _check_order(self) -> None:
        """A job that is to stop has a little time to finish its cycle, unless its state has just been kept."""
        order = self._keeper.order
        if order.command is not self._asked:
            self._asked, self._asked_at = order.command, time.monotonic()
        if order.command is Command.CONTINUE:
            return
        if order.command is Command.GIVE_UP:
            raise AttemptFailed(DeadlineExceeded().as_dict())
        if self._has_just_kept or time.monotonic() >= self._asked_at + order.grace_s:
            raise _Cancelled if order.command is Command.CANCEL else _Released("pause")

    def _check_runtime(self) -> None:
        if time.monotonic() > self._deadline:
            raise AttemptFailed(RuntimeExceeded(self._claim.spec["limits"]["max_runtime_s"]).as_dict())


@contextmanager
def _storing() -> Iterator[None]:
    """What goes wrong with files while they are stored fails the attempt; a full disk is known wherever it is met."""
    try:
        yield
    except OSError as error:
        if shortage(error):
            raise
        raise AttemptFailed(PublishingFailed(error).as_dict()) from error
    except (ObjectMissing, ObjectDamaged, StorageUnavailable) as error:
        raise AttemptFailed(PublishingFailed(error).as_dict()) from error
