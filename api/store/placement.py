"""Which job fits where: what slots offer, what jobs need, and why one is still queued.

Workers say what they have in rows of their own; a row counts while it is fresh by the database's clock.
Knows nothing of how memory is measured or needs are estimated.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.models import ApiKey, Job, SlotReport, Worker
from api.store.quotas import full, may_run
from api.store.room import full_sweeps, has_room
from api.store.states import State


class Offer(NamedTuple):
    """What a free slot has for a job: the kinds of device that it serves, and memory."""

    devices: tuple[str, ...]
    memory_bytes: int


class Demand(NamedTuple):
    """What a job asks for: a kind of device, and how much of its memory, None while that is not known."""

    device: str = "auto"
    memory_bytes: int | None = None


ANY_DEVICE = Demand()
ANYTHING = Offer(devices=("auto", "cpu", "cuda", "mps"), memory_bytes=2**63 - 1)


def due() -> tuple[ColumnElement[bool], ...]:
    """Conditions of a job that may be claimed now."""
    return (
        Job.state == State.QUEUED,
        Job.not_before <= db_now(),
        or_(Job.deadline.is_(None), Job.deadline > db_now()),
        has_room(),
        may_run(),
    )


def fits(offer: Offer) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a job that a slot can run; one whose needs are not known yet may try."""
    return (
        Job.device.in_(offer.devices),
        or_(Job.needs_bytes.is_(None), Job.needs_bytes <= offer.memory_bytes),
    )


def work_waits(session: Session, offer: Offer) -> bool:
    """Whether a job is due that such a slot can run."""
    return session.scalar(select(Job.id).where(*due(), *fits(offer)).limit(1)) is not None


def advertise(session: Session, worker_id: str, slots: Sequence[SlotReport]) -> None:
    """Say that a worker lives and what its slots have now."""
    now = {"slots": list(slots), "seen_at": db_now()}
    if session.scalar(update(Worker).where(Worker.id == worker_id).values(**now).returning(Worker.id)) is None:
        session.add(Worker(id=worker_id, **now))


def withdraw(session: Session, worker_id: str) -> None:
    """Say that a worker goes away."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def forget_silent(session: Session, silent_s: float) -> None:
    """Drop workers that have said nothing for so long."""
    session.execute(delete(Worker).where(Worker.seen_at < db_now(-silent_s)))


def living_workers(session: Session, silent_s: float) -> Sequence[Worker]:
    """Workers that have been heard of within so many seconds, by name."""
    return session.scalars(select(Worker).where(Worker.seen_at >= db_now(-silent_s)).order_by(Worker.id)).all()


class Placement:
    """Says of queued jobs why they wait; asks for workers and keys once, and only if a job waits."""

    def __init__(self, session: Session, *, silent_s: float) -> None:
        self._session = session
        self._silent_s = silent_s

    def reason(self, job: Job) -> str | None:
        """Why the job has not started, in one sentence; None if it is not queued or is about to start."""
        if job.state != State.QUEUED:
            return None
        if job.not_before > self._now:
            return f"It may start from {job.not_before.isoformat(timespec='seconds')} on."
        if job.sweep_id in self._full_sweeps:
            return f"Its sweep runs no more than {self._full_sweeps[job.sweep_id]} job(s) at the same time."
        if job.key_id in self._full_keys:
            return f"Its key may have {self._full_keys[job.key_id]} job(s) running at once, and has."
        return self.obstacle(Demand(job.device, job.needs_bytes))

    def obstacle(self, demand: Demand) -> str | None:
        """What keeps a job with this demand from starting; None if a free slot can take it."""
        serving = [slot for slot in self._slots if demand.device in slot["devices"]]
        if not serving:
            return f"No living worker has the device {demand.device!r}." if self._slots else "No worker is alive."
        return _shortage(demand.memory_bytes or 0, serving)

    @cached_property
    def _slots(self) -> list[SlotReport]:
        return [slot for worker in living_workers(self._session, self._silent_s) for slot in worker.slots]

    @cached_property
    def _full_sweeps(self) -> dict[str, int]:
        return full_sweeps(self._session)

    @cached_property
    def _full_keys(self) -> Mapping[str | None, int]:
        """By id, how many jobs may run of each key that lets no more run."""
        query = select(ApiKey.id, ApiKey.max_running_jobs).where(full())
        return {key_id: limit or 0 for key_id, limit in self._session.execute(query)}

    @cached_property
    def _now(self) -> datetime:
        return self._session.scalars(select(db_now())).one()


def _shortage(needs: int, serving: Sequence[SlotReport]) -> str | None:
    """What slots that serve the right device lack."""
    able = [slot for slot in serving if slot["total_bytes"] >= needs]
    if not able:
        largest = max(slot["total_bytes"] for slot in serving)
        return f"It needs about {_gb(needs)} of memory; the largest device of a living worker has {_gb(largest)}."
    free = [slot["free_bytes"] for slot in able if not slot["busy"]]
    if not free:
        return "Every slot that could run it is busy."
    if needs > max(free):
        return f"It needs about {_gb(needs)} of memory; a free slot has {_gb(max(free))} now."
    return None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
