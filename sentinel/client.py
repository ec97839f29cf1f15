"""Talks to a Sentinel service over HTTP, blocking or async. Loads no torch.

    with SentinelClient("http://127.0.0.1:8000", api_key) as client:
        job = client.submit({"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}})
        job = client.wait(job.id)
        client.download_checkpoint(job.id, Path("pruned"))

    async with AsyncSentinelClient("http://127.0.0.1:8000", api_key) as client:
        job = await client.submit(spec)
        async for event in client.watch(job.id):
            ...

Both have the calls of `ServiceCalls`. Requests that may be sent twice without harm, as all but a few may, are tried
again when connections break or the service is busy, for `patience_s` seconds.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from sentinel.blocking import BlockingTransport, BlockingWaiting, each, finish
from sentinel.endpoint import address, bearer
from sentinel.service_calls import ServiceCalls
from sentinel.transport import Session, Waiting

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 30.0
READ_TIMEOUT_S = 60.0  # longer than a long poll, and than the pings of an event stream are apart


class AsyncSentinelClient(ServiceCalls):
    """One service and one key, for asyncio. Close it, or use it as a context.

    Args:
        base_url: E.g. `http://127.0.0.1:8000`.
        api_key: `sntl_…`.
        patience_s: How long a request is tried again while the service does not answer.

    Raises:
        AddressInvalid: No service can be at `base_url`.
        KeyInvalid: No key looks like `api_key`.
    """

    def __init__(self, base_url: str, api_key: str, *, patience_s: float = PATIENCE_S) -> None:
        super().__init__(_session(base_url, api_key, patience_s, _AsyncWaiting()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.http.aclose()


def _blocking(
    call: Callable[Concatenate[ServiceCalls, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SentinelClient", P], T]:
    """A call that returns when it is done."""

    @wraps(call)
    def method(self: "SentinelClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return finish(call(self._calls, *args, **kwargs))

    return method


def _iterating(
    call: Callable[Concatenate[ServiceCalls, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["SentinelClient", P], Generator[T, None, None]]:
    """A call that is iterated over."""

    @wraps(call)
    def method(self: "SentinelClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return each(call(self._calls, *args, **kwargs))

    return method


class SentinelClient:
    """One service and one key. Close it, or use it as a context; threads may share it.

    Args:
        base_url: E.g. `http://127.0.0.1:8000`.
        api_key: `sntl_…`.
        patience_s: How long a request is tried again while the service does not answer.

    Raises:
        AddressInvalid: No service can be at `base_url`.
        KeyInvalid: No key looks like `api_key`.
    """

    def __init__(self, base_url: str, api_key: str, *, patience_s: float = PATIENCE_S) -> None:
        session = _session(base_url, api_key, patience_s, BlockingWaiting(), transport=BlockingTransport())
        self._calls = ServiceCalls(session)
        self._http = session.http

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        finish(self._http.aclose())

    submit = _blocking(ServiceCalls.submit)
    validate = _blocking(ServiceCalls.validate)
    get = _blocking(ServiceCalls.get)
    list = _iterating(ServiceCalls.list)
    cancel = _blocking(ServiceCalls.cancel)
    pause = _blocking(ServiceCalls.pause)
    resume = _blocking(ServiceCalls.resume)
    retry = _blocking(ServiceCalls.retry)
    attempts = _blocking(ServiceCalls.attempts)
    metrics = _blocking(ServiceCalls.metrics)
    logs = _blocking(ServiceCalls.logs)
    workers = _blocking(ServiceCalls.workers)
    strategies = _blocking(ServiceCalls.strategies)
    events = _iterating(ServiceCalls.events)
    changes = _iterating(ServiceCalls.changes)
    wait = _blocking(ServiceCalls.wait)
    watch = _iterating(ServiceCalls.watch)
    download_checkpoint = _blocking(ServiceCalls.download_checkpoint)
    submit_sweep = _blocking(ServiceCalls.submit_sweep)
    validate_sweep = _blocking(ServiceCalls.validate_sweep)
    get_sweep = _blocking(ServiceCalls.get_sweep)
    list_sweeps = _iterating(ServiceCalls.list_sweeps)
    cancel_sweep = _blocking(ServiceCalls.cancel_sweep)
    sweep_changes = _iterating(ServiceCalls.sweep_changes)
    wait_for_sweep = _blocking(ServiceCalls.wait_for_sweep)
    sweep_table = _blocking(ServiceCalls.sweep_table)
    sweep_best = _blocking(ServiceCalls.sweep_best)
    upload_model = _blocking(ServiceCalls.upload_model)
    upload_text = _blocking(ServiceCalls.upload_text)
    get_upload = _blocking(ServiceCalls.get_upload)
    list_uploads = _iterating(ServiceCalls.list_uploads)
    delete_upload = _blocking(ServiceCalls.delete_upload)
    make_key = _blocking(ServiceCalls.make_key)
    get_key = _blocking(ServiceCalls.get_key)
    list_keys = _iterating(ServiceCalls.list_keys)
    change_key = _blocking(ServiceCalls.change_key)
    revoke_key = _blocking(ServiceCalls.revoke_key)
    usage = _blocking(ServiceCalls.usage)
    audit = _iterating(ServiceCalls.audit)
    make_webhook = _blocking(ServiceCalls.make_webhook)
    get_webhook = _blocking(ServiceCalls.get_webhook)
    list_webhooks = _blocking(ServiceCalls.list_webhooks)
    change_webhook = _blocking(ServiceCalls.change_webhook)
    delete_webhook = _blocking(ServiceCalls.delete_webhook)
    rotate_webhook_secret = _blocking(ServiceCalls.rotate_webhook_secret)
    test_webhook = _blocking(ServiceCalls.test_webhook)
    deliveries = _iterating(ServiceCalls.deliveries)
    redeliver = _blocking(ServiceCalls.redeliver)


class _AsyncWaiting:
    """Time passes for one task."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


def _session(
    base_url: str,
    api_key: str,
    patience_s: float,
    waiting: Waiting,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Session:
    http = httpx.AsyncClient(
        base_url=address(base_url),
        headers=bearer(api_key),
        timeout=httpx.Timeout(10.0, read=READ_TIMEOUT_S),
        transport=transport,
    )
    return Session(http=http, waiting=waiting, patience_s=patience_s)
