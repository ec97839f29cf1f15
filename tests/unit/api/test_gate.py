"""Who is let in where there is no loopback: everybody, until the operator says which hosts there are."""

import anyio
import pytest

from api.gate import Gate


def ask(server, host, *, allowed_hosts=()):
    """The status with which a request is answered; 200 if it is let in."""
    statuses = []

    async def app(scope, receive, send):
        statuses.append(200)

    async def send(message):
        statuses.append(message.get("status"))

    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "server": server,
        "headers": [(b"host", host.encode())],
        "state": {"request_id": "r", "trace_id": "t"},
    }
    anyio.run(Gate(app, allowed_hosts=allowed_hosts), scope, None, send)
    return statuses[0]


@pytest.mark.parametrize("server", [("10.0.0.2", 8000), ("::ffff:10.0.0.2", 8000), ("/run/api.sock", None), None])
def test_elsewhere_any_host_is_let_in_until_some_are_allowed(server):
    assert ask(server, "sentinel.example") == 200
    assert ask(server, "sentinel.example", allowed_hosts=["sentinel.example"]) == 200
    assert ask(server, "evil.example", allowed_hosts=["sentinel.example"]) == 421


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_at_loopback_only_its_names_are_let_in(address):
    assert ask((address, 8000), "localhost:8000", allowed_hosts=["sentinel.example"]) == 200
    assert ask((address, 8000), "evil.example:8000") == 421
    assert ask((address, 80), "localhost") == 200
