"""The network between the parts of a service: ports that lead to a server's Unix socket, and that can be cut.

What is cut is lost as in a real network: a filter on the socket makes the kernel drop the packets, so nobody gets an
acknowledgement, retransmissions pile up, and what was sent arrives late once the cut has healed. Needs Linux.
"""

import asyncio
import ctypes
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # socket(7); the module `socket` does not name them
RETURN_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET: keep 0 bytes of a packet
DROP_ALL = struct.pack("HL", 1, ctypes.addressof(RETURN_NOTHING))
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
CHUNK_BYTES = 65536


class Cut(StrEnum):
    """What becomes of what is sent.

    Where answers are lost, the client's packets are acknowledged nevertheless: like a server that hangs on a host that
    does not.
    """

    BLACK_HOLE = "black hole"
    REQUESTS_LOST = "requests lost"  # the server still gets through to its client
    ANSWERS_LOST = "answers lost"  # the client still gets through: it does not know whether its commit happened
    RESET = "reset"  # connections are closed, and new ones refused


class Network:
    """A thread that carries the bytes of every link."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._links: list[Link] = []

    def link(self, server: Path) -> "Link":
        """A new way to the socket of a server."""
        link = Link(self._loop, server)
        self._run(link.open())
        self._links.append(link)
        return link

    def heal(self) -> None:
        """Every cut ends."""
        for link in self._links:
            link.heal()

    def close(self) -> None:
        """Drop every connection."""
        for link in self._links:
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Link:
    """One way from a client to a server. `cut` and `heal` may be called from any thread.

    Attributes:
        port: Of the loopback, where the client finds it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Path) -> None:
        self._loop = loop
        self._server = server
        self._cut: Cut | None = None
        self._answers = asyncio.Event()
        self._answers.set()
        self._healing: asyncio.TimerHandle | None = None
        self._clients: set[StreamWriter] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self.port = 0

    def cut(self, how: Cut, for_s: float) -> None:
        """Let nothing through in this way, for a while."""
        self._loop.call_soon_threadsafe(self._begin, how, for_s)

    def heal(self) -> None:
        """Let everything through."""
        self._loop.call_soon_threadsafe(self._become, None)

    async def open(self) -> None:
        """Listen. In the network's thread, as `close`."""
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        self._become(None)
        self._listener.close()
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def _begin(self, how: Cut, for_s: float) -> None:
        self._become(how)
        self._healing = self._loop.call_later(for_s, self._become, None)

    def _become(self, cut: Cut | None) -> None:
        if self._healing is not None:
            self._healing.cancel()
            self._healing = None
        self._cut = cut
        _drop(self._listener.sockets[0], self._deaf)
        for client in list(self._clients):
            _drop(client.get_extra_info("socket"), self._deaf)
            if cut is Cut.RESET:
                _reset(client)
        if cut in (Cut.BLACK_HOLE, Cut.ANSWERS_LOST):
            self._answers.clear()
        else:
            self._answers.set()

    @property
    def _deaf(self) -> bool:
        return self._cut in (Cut.BLACK_HOLE, Cut.REQUESTS_LOST)

    async def _carry(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carriers.add(task)
        self._clients.add(to_client)
        try:
            # OSError: the server is not there, or somebody has gone.
            with suppress(OSError):
                await self._serve(from_client, to_client)
        finally:
            self._clients.discard(to_client)
            self._carriers.discard(task)
            to_client.close()

    async def _serve(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        if self._cut is Cut.RESET:
            _reset(to_client)
            return
        _drop(to_client.get_extra_info("socket"), self._deaf)
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        try:
            await _either(self._requests(from_client, to_server), self._replies(from_server, to_client))
        finally:
            to_server.close()

    async def _requests(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()

    async def _replies(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._answers.wait()
            writer.write(data)
            await writer.drain()


async def _either(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends; the others with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _drop(end: Any, dropping: bool) -> None:  # a socket as asyncio shows it
    if end.fileno() < 0:
        return
    if dropping:
        end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, DROP_ALL)
    else:
        with suppress(FileNotFoundError):  # there was none
            end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _reset(client: StreamWriter) -> None:
    end = client.get_extra_info("socket")
    if end.fileno() < 0:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    client.transport.abort()
