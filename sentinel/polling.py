"""Follows what the service works on until that has ended, by long polls."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import httpx

from sentinel.replies import Job, Sweep
from sentinel.transport import Session, understood

Followed = TypeVar("Followed", Job, Sweep)

LONG_POLL_S = 20


async def changes(session: Session, reply: type[Followed], path: str) -> AsyncGenerator[Followed, None]:
    """What is there now, after every change, and at least every 20 s; the last one has ended."""
    found = await session.read(reply, path)
    tag = ""
    while not found.ended:
        yield found
        answer = await session.request("GET", path, params={"wait": LONG_POLL_S}, headers={"If-None-Match": tag})
        if answer.status_code != httpx.codes.NOT_MODIFIED:
            tag = answer.headers["ETag"]
            found = understood(reply, answer)
    yield found


async def last(found: AsyncGenerator[Followed, None], *, timeout_s: float | None) -> Followed:
    """What has ended.

    Raises:
        TimeoutError: It has not within `timeout_s`, give or take the 20 s of a poll.
    """
    began = time.monotonic()
    async with aclosing(found) as versions:
        async for version in versions:
            if timeout_s is not None and not version.ended and time.monotonic() - began > timeout_s:
                raise TimeoutError(f"{version.id} has not ended after {timeout_s:g} s.")
    return version
