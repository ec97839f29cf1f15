"""Requests to addresses that users name, which must reach nothing inside the operator's network.

A name is looked up once, when a connection is made: every address it has must be public, and the connection goes to
one of those very addresses, while TLS checks the name. No other answer of the name's owner is ever asked for. What the
operator allows is trusted with everything. Redirects are answers like any other, and no proxy is used. Knows nothing of
what is sent.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore
import httpx
from httpcore import SOCKET_OPTION

from sentinel.errors import Fault, FieldError, SentinelError

CONNECT_S = 5.0
READ_S = 10.0  # of silence
TOTAL_S = 15.0  # from the connection to the end, however little of it is silence
TRIED_ADDRESSES = 3  # of one host
LARGEST_ANSWER_BYTES = 16 * 1024
PORTS = frozenset({443, 8443})
DEFAULT_PORTS = {"https": 443, "http": 80}
NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")  # of a host; some have underscores
FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)

# IANA's special-purpose registries. `is_global` of some versions of Python lets metadata services of clouds pass.
NOT_PUBLIC_V4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own services, inside every virtual machine
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
# Everything else has no route, or holds an IPv4 address: mapped, compatible, NAT64.
PUBLIC_V6 = IPv6Network("2000::/3")
NOT_PUBLIC_V6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]

Resolver = Callable[[str, int], Sequence[str]]


class TargetRefused(SentinelError):
    """A URL leads, or may lead, to where this service does not send."""

    code = "target_refused"
    fault = Fault.USER
    next_step = "Name an https:// URL of a public host, or ask the operator for SENTINEL_OUTBOUND_ALLOWED_HOSTS."

    def __init__(self, message: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class TargetUnreachable(SentinelError):
    """No answer came."""

    code = "target_unreachable"
    fault = Fault.USER
    next_step = "Check that the host can be reached from the internet, its certificate, and that it answers in time."


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, as the system knows them, in its order of preference.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address belongs to a host on the internet, and to nothing nearer."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in PUBLIC_V6 and not any(address in network for network in NOT_PUBLIC_V6)


class Guard:
    """Which hosts and addresses may be reached."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in allowed:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._names.add(entry.lower())

    def check_url(self, text: str) -> httpx.URL:
        """The parsed URL, if it may be tried. Looks no name up: `check_addresses` is for what it stands for.

        Raises:
            TargetRefused: It may not.
        """
        try:
            url = httpx.URL(text)
            named = bool(url.host)  # decodes it, as whoever shows the URL does
        except (httpx.InvalidURL, UnicodeError) as error:
            raise TargetRefused(f"This is not a URL: {error}") from error
        if url.scheme not in DEFAULT_PORTS or not named:
            raise TargetRefused("The URL is not of the form https://host/path.")
        if url.userinfo:
            raise TargetRefused("The URL has a user or a password in it.")
        host = url.raw_host.decode("ascii")
        if not self._is_trusted(host):
            self._check_untrusted(url, host)
        return url

    def _check_untrusted(self, url: httpx.URL, host: str) -> None:
        if url.scheme != "https":
            raise TargetRefused("The URL is not https://.")
        if port_of(url) not in PORTS:
            raise TargetRefused(f"The port is none of {', '.join(map(str, sorted(PORTS)))}.")
        literal = _literal(host)
        if literal is not None:
            self._check_address(literal)
        elif "." not in host.rstrip(".") or not NAME.fullmatch(host):
            raise TargetRefused(f"{host!r} is no full name of a host.")

    def check_addresses(self, host: str, addresses: Iterable[str]) -> None:
        """Refuse a host one of whose addresses is not public.

        Raises:
            TargetRefused: There is such a one.
        """
        if not self._is_trusted(host):
            for address in addresses:
                self._check_address(ip_address(address))

    def _check_address(self, address: IPv4Address | IPv6Address) -> None:
        """The message names no address: what a name stands for inside the network is not for users to learn."""
        if not (is_public(address) or self._is_allowed(address)):
            raise TargetRefused("The host is not on the public internet.")

    def _is_trusted(self, host: str) -> bool:
        literal = _literal(host)
        return host.lower() in self._names if literal is None else self._is_allowed(literal)

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def port_of(url: httpx.URL) -> int:
    """The port that a checked URL names, or that its scheme stands for."""
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, in any of the forms that the system takes: also `2130706433`, `0x7f.1`."""
    with suppress(OSError, ValueError):
        (_, _, _, _, address), *_ = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        return ip_address(str(address[0]))
    return None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. Names of headers are in small letters; of repeated ones the last."""

    status: int
    headers: Mapping[str, str]


class Outbound:
    """Sends guarded requests, each over a connection of its own.

    Args:
        allowed: Names, addresses and networks that the operator trusts.
        resolve: Host and port → addresses.
        ssl_context: What TLS trusts; by default what `httpx` does, so `SSL_CERT_FILE` counts.
    """

    def __init__(
        self, allowed: Iterable[str] = (), *, resolve: Resolver = look_up, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.guard = Guard(allowed)
        self._resolve = resolve
        self._ssl_context = ssl_context

    @cached_property
    def _connections(self) -> httpcore.ConnectionPool:
        """Made when first needed: the certificates of the world's authorities take a process megabytes."""
        return httpcore.ConnectionPool(
            ssl_context=self._ssl_context or httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_GuardedBackend(self.guard, self._resolve),
        )

    def post(self, text: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body to a URL.

        Raises:
            TargetRefused: The URL or what its host stands for is not allowed.
            TargetUnreachable: No answer, or not in time.
        """
        url = self.guard.check_url(text)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
        timeout = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            with self._connections.stream(
                "POST",
                target,
                headers=[(b"Host", url.netloc), *named],
                content=body,
                extensions={"timeout": timeout},
            ) as response:
                _drain(response)
        except FAILURES as error:
            raise TargetUnreachable(f"{type(error).__name__}: {error}") from error
        return Answer(
            status=response.status,
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers},
        )


def _drain(response: httpcore.Response) -> None:
    """Read a short answer to its end, so that its sender sees it taken; leave one that is long or late."""
    size = 0
    with suppress(*FAILURES):
        for chunk in response.iter_stream():
            size += len(chunk)
            if size > LARGEST_ANSWER_BYTES:
                return


class _GuardedBackend(httpcore.NetworkBackend):
    """Looks a host up, checks what it found, and connects to that."""

    def __init__(self, guard: Guard, resolve: Resolver) -> None:
        self._guard = guard
        self._resolve = resolve
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address that takes it; an address needs no second look-up.

        Raises:
            TargetRefused: One of the addresses is not allowed.
            TargetUnreachable: The host has no address, or none that answers.
        """
        try:
            addresses = self._resolve(host, port)
        except (OSError, ValueError) as error:
            raise TargetUnreachable(f"The name {host!r} cannot be looked up: {error}") from error
        self._guard.check_addresses(host, addresses)
        failure: Exception | None = None
        for address in addresses[:TRIED_ADDRESSES]:
            try:
                stream = self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, time.monotonic() + TOTAL_S)
        raise TargetUnreachable(f"The host takes no connection: {failure}")


class _TimedStream(httpcore.NetworkStream):
    """A connection that ends by a deadline, however lively the other side is."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive."""
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send."""
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands."""
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> object:
        """As the connection knows it."""
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"no whole answer within {TOTAL_S:g} seconds")
        return left if timeout is None else min(left, timeout)
