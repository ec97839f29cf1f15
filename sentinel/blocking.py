"""Lets code that is written with `async` run without an event loop, as long as all that it awaits blocks instead.

A coroutine that never waits for anybody else runs to its end the first time that it is stepped. So the calls of a
service are written once: the blocking client gives them a transport that has its answer before it is awaited.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

import httpx

T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose awaits all block."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("Something was awaited that needs an event loop.")


def each(values: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The values of an async generator whose awaits all block; closed with it."""
    try:
        while True:
            try:
                value = finish(values.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        finish(values.aclose())


class BlockingWaiting:
    """Time passes for the whole thread."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def run(self, work: Callable[[], T]) -> T:
        """Do it here."""
        return work()


class BlockingTransport(httpx.AsyncBaseTransport):
    """Sends with an ordinary client of httpx, which brings the proxies and certificates of the environment.

    It follows no redirect and decodes nothing: the client above does.
    """

    def __init__(self) -> None:
        self._client = httpx.Client()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return once the headers of its answer are there."""
        answer = self._client.send(_blocking(request), stream=True)
        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close the connections."""
        self._client.close()


def _blocking(request: httpx.Request) -> httpx.Request:
    """The same request, whose bytes a client of httpx's can read that does not await."""
    if isinstance(request.stream, httpx.SyncByteStream):
        return request
    stream = _Sent(request.stream)
    return httpx.Request(
        request.method, request.url, headers=request.headers, stream=stream, extensions=request.extensions
    )


class _Sent(httpx.SyncByteStream):
    """Bytes that go out as they are made."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return each(_chunks(self._stream))


async def _chunks(stream: httpx.AsyncByteStream) -> AsyncGenerator[bytes, None]:
    async for chunk in stream:
        yield chunk


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer as they came."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._answer.iter_raw():
            yield chunk

    async def aclose(self) -> None:
        self._answer.close()
