"""How many new clients a turn of the API's event loop lets in."""

import asyncio
import itertools
import socket
from contextlib import ExitStack

from api.accepting import PatientLoop

CLIENTS = 20


class Counting(asyncio.Protocol):
    """Counts the connections that were let in."""

    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Counting.made += 1
        transport.close()


async def let_in_by_turn() -> list[int]:
    """How many are in after each turn; all of them wait when the first begins."""
    Counting.made, counts = 0, [0]
    server = await asyncio.get_running_loop().create_server(Counting, "127.0.0.1", 0, backlog=2 * CLIENTS)
    with ExitStack() as held:
        for _ in range(CLIENTS):
            held.enter_context(socket.create_connection(server.sockets[0].getsockname(), timeout=5))
        while Counting.made < CLIENTS:
            await asyncio.sleep(0)
            counts.append(Counting.made)
    server.close()
    return counts


def test_clients_that_come_at_once_are_let_in_one_by_one():
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        counts = runner.run(asyncio.wait_for(let_in_by_turn(), timeout=30))
    assert counts[-1] == CLIENTS
    assert max(after - before for before, after in itertools.pairwise(counts)) == 1
