"""Waiting for news of a job, or of a sweep: a long poll, or a stream of events.

The database is the log, so any replica can serve any reader. It is asked in short transactions, in threads, and only
when `news` says that something has changed, so that a thousand waiting readers hold neither connections nor the event
loop.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol, TypeVar

from anyio import to_thread
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent

from api.auth import Principal
from api.conditional import has_tag, quoted
from api.jobs.schemas import EventView
from api.resources import Resources
from api.store import jobs as store
from api.store.states import State, is_terminal

# How long a stream has to end by itself when the server stops; without it, it is cut in the middle of its body.
STOP_GRACE_S = 1.5
BATCH = 500  # events read in one transaction


class _Versioned(Protocol):
    """Something as it is, under a tag."""

    @property
    def version(self) -> int: ...
    @property
    def tag(self) -> str: ...


_Shown = TypeVar("_Shown", bound=_Versioned)


async def next_version(
    resources: Resources, show: Callable[[Session], _Shown], subject_id: str, *, known: str | None, wait_s: float
) -> _Shown:
    """What `show` shows as soon as its tag is none of `known`, or after `wait_s` seconds or when the server stops."""

    def look() -> _Shown:
        with resources.database.reading() as session:
            return show(session)

    deadline = time.monotonic() + wait_s
    while True:
        shown = await to_thread.run_sync(look)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or resources.stopping.is_set() or not has_tag(known, quoted(shown.tag)):
            return shown
        await resources.news.changed(subject_id, shown.version, left_s)


class _Read(NamedTuple):
    state: State
    version: int
    events: list[EventView]


async def follow(resources: Resources, caller: Principal, job_id: str, *, after: int) -> AsyncIterator[ServerSentEvent]:
    """Every event past `after`, in order and without gaps, then `end` once the job is over.

    A server that stops ends the stream without `end`: the reader goes on at another, or later.
    """

    def look(seq: int) -> _Read:
        with resources.database.reading() as session:
            # The state first: the event that ends a job commits with its last state, so none can be missed.
            job = store.get_job(session, caller.tenant, job_id)
            state, version = job.state, job.version
            events = store.list_events(session, job_id, after=seq, limit=BATCH)
            return _Read(state, version, [EventView.of(event) for event in events])

    while not resources.stopping.is_set():
        read = await to_thread.run_sync(look, after)
        for event in read.events:
            yield ServerSentEvent(id=str(event.seq), event=event.type, data=event.model_dump_json())
            after = event.seq
        if len(read.events) == BATCH:
            continue
        if is_terminal(read.state):
            yield ServerSentEvent(event="end", data=f'{{"state": "{read.state}"}}')
            return
        await resources.news.changed(job_id, read.version)
