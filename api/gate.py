"""Which requests are let in at all: by the size of their head, the host that they name, the page that they come from.

A page of somebody else's, open in a browser on this host or inside this network, must not speak to the service. It
could by a name of its own that it lets point here (DNS rebinding): the Host header gives that away. Or it sends
requests whose answers it may not read: those carry its Origin. Plain ASGI; knows no route.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import of_sentinel_error
from api.refusals import HeadTooLarge, HostNotAllowed, OriginNotAllowed, TargetTooLong
from api.settings import HOST
from sentinel.errors import SentinelError

MOST_HEADERS = 100
LARGEST_HEAD_BYTES = 16 * 1024
LONGEST_TARGET_BYTES = 8 * 1024
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
DEFAULT_PORTS = {"http": 80, "https": 443}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEALTH = frozenset({"/livez", "/readyz"})  # no secret; who checks them, a proxy's container say, knows addresses only


class Gate:
    """Refuses what must not reach any route.

    Args:
        allowed_hosts: `name` or `name:port` by which the service may be called, beside loopback's own names. Without
            any, a connection that comes in at another address than loopback may name whatever host it likes.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            _check_size(scope)
            if scope["path"] not in HEALTH:
                _check_host(scope, self.allowed_hosts)
            _check_origin(scope)
        except SentinelError as refusal:
            return await of_sentinel_error(Request(scope), refusal)(scope, receive, send)
        return await self.app(scope, receive, send)


def _check_size(scope: Scope) -> None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_TARGET_BYTES:
        raise TargetTooLong(f"Path and query are longer than {LONGEST_TARGET_BYTES} bytes.")
    headers = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD_BYTES:
        raise HeadTooLarge(f"The request has more than {MOST_HEADERS} headers or {LARGEST_HEAD_BYTES} bytes of them.")


def _check_host(scope: Scope, allowed_hosts: Collection[str]) -> None:
    address, own_port = scope.get("server") or ("", None)
    at_loopback = _is_loopback(address)
    if not at_loopback and not allowed_hosts:
        return
    said = Headers(scope=scope).get("host", "").lower()
    found = HOST.fullmatch(said)
    if found is not None:
        name, port = found["name"], int(found["port"] or DEFAULT_PORTS.get(scope["scheme"], 0))
        if at_loopback and name in LOOPBACK_NAMES and port == own_port:
            return
        if not {name, f"{name}:{port}"}.isdisjoint(allowed_hosts):
            return
    raise HostNotAllowed(f"The service does not answer to the host {said!r}.")


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket, say
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _check_origin(scope: Scope) -> None:
    """Only browsers send an Origin; what pages of this service send comes from the host that it goes to."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if scope["method"] in SAFE_METHODS or origin is None:
        return
    if _netloc(origin) != headers.get("host", "").lower():
        raise OriginNotAllowed(f"The request comes from a page of {origin!r}.")


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
