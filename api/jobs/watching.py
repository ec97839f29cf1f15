"""Waiting for news of a job: a long poll, or a stream of events.

The database is the log, so any replica can serve any reader. It is asked in short transactions, in threads, and only
when `news` says that something has changed, so that a thousand waiting readers hold neither connections nor the event
loop.
"""

import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from anyio import to_thread
from sse_starlette import ServerSentEvent

from api.auth import Principal
from api.conditional import has_tag, quoted
from api.jobs import service
from api.jobs.schemas import EventView
from api.resources import Resources
from api.store import jobs as store
from api.store.states import State, is_terminal

# How long a stream has to end by itself when the server stops; without it, it is cut in the middle of its body.
STOP_GRACE_S = 1.5
BATCH = 500  # events read in one transaction


async def next_version(
    resources: Resources, caller: Principal, job_id: str, *, known: str | None, wait_s: float
) -> service.Shown:
    """The job as soon as its tag is none of `known`, or as it is after `wait_s` seconds or when the server stops."""

    def look() -> service.Shown:
        with resources.database.reading() as session:
            return service.show(session, caller, job_id, settings=resources.settings)

    deadline = time.monotonic() + wait_s
    while True:
        shown = await to_thread.run_sync(look)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or resources.stopping.is_set() or not has_tag(known, quoted(shown.tag)):
            return shown
        await resources.news.changed(job_id, shown.version, left_s)


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
