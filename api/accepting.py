"""The event loop that the API runs in: asyncio's own, which lets new clients in one by one.

asyncio accepts as many connections in one turn of the loop as may wait for it, which is the server's `backlog`. Each
takes a tenth of a millisecond, so that whoever opens a thousand at once stops everybody else's requests for that long.
`uvicorn --loop api.accepting:PatientLoop` uses this one.
"""

import asyncio
from typing import Any


class PatientLoop(asyncio.SelectorEventLoop):
    """Between two connections that it accepts, it serves those that are there."""

    # What else it takes is asyncio's own.
    async def create_server(self, *args: Any, backlog: int = 100, **options: Any) -> asyncio.Server:  # noqa: ANN401
        """A server on which `backlog` connections may wait; see `asyncio.loop.create_server`."""
        server = await super().create_server(*args, backlog=1, **options)
        # For asyncio one number says how many may wait and how many are let in at once; the first is the kernel's.
        for listening in server.sockets:
            with listening.dup() as same:
                same.listen(backlog)
        return server
