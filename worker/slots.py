"""Where a worker runs jobs: one slot runs one job at a time on one device, in a runner that is warm by then.

Knows what a slot can offer now; which job it gets is the supervisor's business.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from api.store.models import SlotReport
from api.store.placement import Offer
from worker.child import Runner, RunnerUnavailable, Start
from worker.devices import Device, Memory

logger = logging.getLogger(__name__)


class Slot:
    """One place for a job.

    Args:
        device: Where its runners compute.
        cache: What its runners may keep for each other.
        new_folder: Makes a scratch folder for a runner.
        start: Starts a runner's process.

    Attributes:
        needs_bytes: What the job that runs here will take of the device's memory; 0 without one.
    """

    def __init__(self, device: Device, cache: Path, new_folder: Callable[[], Path], start: Start) -> None:
        self.device = device
        self._environment = {**device.environment, "SENTINEL_CACHE": str(cache)}
        self.needs_bytes = 0
        self._start = start
        self._new_folder = new_folder
        self._taken = threading.Lock()
        self._warm: Runner | None = self._new_runner()

    @property
    def busy(self) -> bool:
        """Whether somebody has taken it."""
        return self._taken.locked()

    def take(self) -> bool:
        """Take it if it is free."""
        return self._taken.acquire(blocking=False)

    def give_back(self) -> None:
        """Let another have it."""
        self.needs_bytes = 0
        self._taken.release()

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait for a warm runner, a new one if the last has died; false if `stop` was set before.

        Raises:
            RunnerUnavailable: No runner starts here.
        """
        if self._warm is not None and not self._warm.alive:
            logger.error("the warm runner has ended:\n%s", self._warm.log_tail())
            self.close()
        if self._warm is None:
            self._warm = self._new_runner()
        return self._warm.wait_ready(stop)

    def take_runner(self) -> Runner:
        """The warm runner; the next one starts to warm up at once, or when it is waited for if it cannot now.

        Raises:
            RunnerUnavailable: There is none.
        """
        taken, self._warm = self._warm, None
        if taken is None:
            raise RunnerUnavailable("No runner is warm.")
        try:
            self._warm = self._new_runner()
        except RunnerUnavailable as error:
            logger.error("the next runner does not start: %s", error)  # noqa: TRY400 - the text says it all
        return taken

    def close(self) -> None:
        """End the warm runner."""
        closing, self._warm = self._warm, None
        if closing is not None:
            closing.close()

    def _new_runner(self) -> Runner:
        try:
            return Runner(self._new_folder(), self._environment, self._start)
        except (OSError, RuntimeError) as error:  # no space, no process, no thread
            raise RunnerUnavailable(f"No runner starts here: {error}") from error


def free_memory(slot: Slot, slots: Sequence[Slot]) -> Memory:
    """What a job here could have: not what is in use, nor what the other jobs on the device are still to take."""
    total, free = slot.device.memory()
    return Memory(total, max(0, min(free, total - _promised_to_others(slot, slots))))


def reserve(slot: Slot, slots: Sequence[Slot], needs_bytes: int) -> bool:
    """Count on what the job here will take; false if the others on the device have been promised too much for it."""
    if needs_bytes > slot.device.memory().total - _promised_to_others(slot, slots):
        return False
    slot.needs_bytes = needs_bytes
    return True


def _promised_to_others(slot: Slot, slots: Sequence[Slot]) -> int:
    return sum(other.needs_bytes for other in slots if other.device is slot.device and other is not slot)


def offer_of(slot: Slot, slots: Sequence[Slot]) -> Offer:
    """What the slot has for a job now."""
    return Offer(slot.device.serves, free_memory(slot, slots).free)


def report_of(slot: Slot, slots: Sequence[Slot]) -> SlotReport:
    """What the slot tells everybody."""
    total, free = free_memory(slot, slots)
    return SlotReport(
        device=slot.device.name, devices=list(slot.device.serves), total_bytes=total, free_bytes=free, busy=slot.busy
    )
