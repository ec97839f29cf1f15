"""What users name leads nowhere but to the internet, however they write it and whatever their name servers say."""

import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Network, ip_address

import pytest
import trustme

from api import outbound
from api.outbound import Guard, Outbound, TargetRefused, TargetUnreachable, is_public
from tests.receiver import Receiver

NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_addresses_are_not_public(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "192.0.1.1", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://[{address}]/" if ":" in address else f"https://{address}/" for address in NOT_PUBLIC),
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://0/",
        "https://127。0。0。1/",
        "https://[::ffff:7f00:1]/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://[fe80::1%25lo]/",
        "https://localhost/",
        "https://localhost./",
        "https://redis:443/",
        "https://hook.example\\@127.0.0.1/",
        "http://hook.example/",
        "ftp://hook.example/",
        "file:///etc/passwd",
        "gopher://hook.example/",
        "//hook.example/",
        "hook.example",
        "https:///path",
        "https://user:password@hook.example/",
        "https://user@hook.example/",
        "https://hook.example:22/",
        "https://hook.example:6379/",
        "https://hook.example:80/",
        "https://hook.example:99999/",
        "https://hook.example:0/",
        "https://xn--/",
        "https://xn--a.example/",
        "https://hook.example:port/",
        "https://exa\nmple.com/",
        "https://exa mple.com/",
        "https://exa%20mple.com/",
        "https://hook..example/",
        "https://*.hook.example/",
        "https://hook,example.com/",
        f"https://{'x' * 64}.example/",
        "https://[::1/",
        "",
    ],
)
def test_urls_that_lead_elsewhere_are_refused(url):
    with pytest.raises(TargetRefused):
        Guard([]).check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://hook.example/a?b=c",
        "https://HOOK.example:443/",
        "https://hook.example:8443",
        "https://my_hook.example./",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://bücher.example/",
    ],
)
def test_urls_of_the_internet_may_be_tried(url):
    Guard([]).check_url(url)


def test_the_operator_s_hosts_are_trusted_with_any_port_and_without_tls():
    guard = Guard(["Hook.Corp", "10.1.0.0/16", "::1"])
    for url in ("http://hook.corp:8080/", "http://HOOK.corp/", "http://10.1.2.3:99/", "https://[::1]:1/"):
        guard.check_url(url)
    for url in (
        "http://other.corp/",
        "https://10.2.0.1/",
        "http://a.hook.corp/",
        "https://me@hook.corp/",
        "ftp://hook.corp",
    ):
        with pytest.raises(TargetRefused):
            guard.check_url(url)
    guard.check_addresses("hook.corp", ["192.168.0.1"])
    guard.check_addresses("hook.example", ["10.1.0.1", "8.8.8.8"])
    with pytest.raises(TargetRefused):
        guard.check_addresses("hook.example", ["10.1.0.1", "192.168.0.1"])


class Names:
    """A name server that gives its answers one after the other, and the last one again and again."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port):
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    """TLS receivers by the name in their certificate, and what sends to them; each on a port of its own."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    with ExitStack() as stack:

        def start(name, names, **options):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert(name).configure_cert(context)
            receiver = stack.enter_context(Receiver(**options).serving(context))
            return receiver, Outbound(["127.0.0.1", "hook.corp"], resolve=names, ssl_context=trusting)

        yield start


@pytest.fixture
def connections(monkeypatch):
    """Every address that a socket is connected to."""
    made = []
    connect = socket.socket.connect

    def noting(self, address):
        made.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noting)
    return made


def test_the_connection_goes_to_the_checked_address_and_tls_checks_the_name(tls, connections):
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    receiver, sender = tls("hook.corp", names)
    answer = sender.post(f"https://hook.corp:{receiver.port}/a?b=c", b"body", {"X-Mine": "1"})
    assert (answer.status, names.asked) == (200, [("hook.corp", receiver.port)])
    assert connections == [("127.0.0.1", receiver.port)]
    (request,) = receiver.requests
    assert (request.path, request.body, request.headers["x-mine"]) == ("/a?b=c", b"body", "1")
    assert request.headers["host"] == f"hook.corp:{receiver.port}"


def test_a_certificate_of_another_name_is_no_answer(tls):
    receiver, sender = tls("other.corp", Names(["127.0.0.1"]))
    with pytest.raises(TargetUnreachable, match="certificate"):
        sender.post(f"https://hook.corp:{receiver.port}/", b"", {})
    assert receiver.requests == []


@pytest.fixture
def internet(monkeypatch):
    """For one test, 127.0.0.1 is a host on the internet, and the rest is as it was."""
    loopback, host = IPv4Network("127.0.0.0/8"), IPv4Network("127.0.0.1/32")
    nearer = [network for network in outbound.NOT_PUBLIC_V4 if network != loopback]
    monkeypatch.setattr(outbound, "NOT_PUBLIC_V4", [*nearer, *loopback.address_exclude(host)])


def test_a_name_that_changes_between_two_looks_cannot_lead_inside(tls, internet, monkeypatch, connections):
    """The first answer is public and is used, the second is not and is refused: nothing lies between look and use."""
    names = Names(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"])
    receiver, _ = tls("hook.example", names)
    monkeypatch.setattr(outbound, "PORTS", {receiver.port})
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    sender = Outbound(resolve=names, ssl_context=trusting)
    url = f"https://hook.example:{receiver.port}/"
    assert sender.post(url, b"1", {}).status == 200
    for _ in range(4):
        with pytest.raises(TargetRefused, match="not on the public internet") as refused:
            sender.post(url, b"2", {})
        assert "127" not in refused.value.message
    assert len(names.asked) == 5
    assert connections == [("127.0.0.1", receiver.port)]
    assert [request.body for request in receiver.requests] == [b"1"]


def test_redirects_are_answers(connections):
    with Receiver(lambda _: (302, {"Location": "http://127.0.0.2/"})).serving() as receiver:
        answer = Outbound(["127.0.0.1"]).post(receiver.url, b"", {})
    assert (answer.status, answer.headers["location"]) == (302, "http://127.0.0.2/")
    assert [address for address, _ in connections] == ["127.0.0.1"]


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Receiver().serving() as receiver:
        assert Outbound(["127.0.0.1"]).post(receiver.url, b"", {}).status == 200


def test_the_next_address_is_tried_where_one_takes_no_connection():
    with Receiver().serving() as receiver:
        sender = Outbound(["hook.corp"], resolve=Names(["127.0.0.2", "127.0.0.1"]))
        assert sender.post(f"http://hook.corp:{receiver.port}/", b"", {}).status == 200
        nobody = Outbound(["hook.corp"], resolve=Names(["127.0.0.2", "127.0.0.3"]))
        with pytest.raises(TargetUnreachable, match="refused"):
            nobody.post(f"http://hook.corp:{receiver.port}/", b"", {})


@pytest.mark.parametrize("answer", [socket.gaierror(-2, "unknown"), [], UnicodeError("label too long")])
def test_a_name_without_an_address_is_unreachable(answer):
    with pytest.raises(TargetUnreachable):
        Outbound(resolve=Names(answer)).post("https://hook.example/", b"", {})


def test_a_long_answer_is_not_read_to_its_end():
    sent = []

    def endless(stream):
        while len(sent) < 100_000:
            stream.write(b"x" * 4096)
            sent.append(4096)

    with Receiver(tail=endless).serving() as receiver:
        assert Outbound(["127.0.0.1"]).post(receiver.url, b"", {}).status == 200
    assert sum(sent) < 100 * 2**20


@contextmanager
def dripping():
    """The port of a receiver that goes on and on with one header."""

    def drip(server):
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_an_answer_that_drips_ends_by_the_deadline(monkeypatch):
    monkeypatch.setattr(outbound, "TOTAL_S", 0.3)
    with dripping() as port, pytest.raises(TargetUnreachable, match="ReadTimeout"):
        Outbound(["127.0.0.1"]).post(f"http://127.0.0.1:{port}/", b"", {})


def test_silence_is_no_answer(monkeypatch):
    monkeypatch.setattr(outbound, "READ_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TargetUnreachable, match="ReadTimeout"):
        Outbound(["127.0.0.1"]).post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"", {})


def test_what_is_no_tls_is_no_answer():
    with Receiver().serving() as receiver, pytest.raises(TargetUnreachable, match="SSL"):
        Outbound(["127.0.0.1"]).post(f"https://127.0.0.1:{receiver.port}/", b"", {})
