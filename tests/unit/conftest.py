"""A scripted service and each of the two clients to ask it; what runs measure and at which rates they learn."""

import asyncio
import threading
from contextlib import ExitStack
from functools import wraps
from inspect import isasyncgen, iscoroutine

import pytest
import torch

from sentinel.client import AsyncSentinelClient, SentinelClient
from tests.scripted_service import Scripted

KEY, PATIENCE_S = "sntl_key", 2


class Driven:
    """The async client in an event loop of its own, to be used like the blocking one."""

    def __init__(self, client: AsyncSentinelClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name):
        call = getattr(self._client, name)

        @wraps(call)
        def method(*args, **kwargs):
            made = call(*args, **kwargs)
            if isasyncgen(made):
                return self._each(made)
            assert iscoroutine(made)
            return self._runner.run(made)

        return method

    def _each(self, values):
        async def step():
            return await anext(values, None)

        while (value := self._runner.run(step())) is not None:
            yield value


@pytest.fixture
def server():
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["blocking", "async"])
def client(server, request):
    url = f"http://127.0.0.1:{server.server_port}"
    with ExitStack() as stack:
        if request.param == "blocking":
            yield stack.enter_context(SentinelClient(url, KEY, patience_s=PATIENCE_S))
            return
        runner = stack.enter_context(asyncio.Runner())
        client = AsyncSentinelClient(url, KEY, patience_s=PATIENCE_S)
        stack.callback(lambda: runner.run(client.aclose()))
        yield Driven(client, runner)


@pytest.fixture(scope="module")
def less_held_out_text():
    """Runs look at it often, and on the tiny models a small share of it says as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sentinel.inputs.HELD_OUT_TOKENS", 2048)
        yield


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of every optimiser step that is taken."""
    seen, step = [], torch.optim.AdamW.step

    def stepped(optimizer, *arguments):
        seen.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepped)
    return seen
