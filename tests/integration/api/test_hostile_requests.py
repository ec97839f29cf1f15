"""Requests that mean harm: each is refused with its code, and meanwhile the service answers everybody else."""

import json
import socket
import time
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx
import pytest

from api import connections, middleware
from api.jobs.parsing import PARSERS, Unparsable, parse
from api.store.keys import Scope
from tests.integration.api.conftest import SPEC, running
from tests.integration.api.objects import artifact

YAML = {"Content-Type": "application/yaml"}
JSON = {"Content-Type": "application/json"}
LAUGHS = "a: &a [lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    hosts = ["sentinel.example", "other.example:8443"]
    with running(tmp_path_factory.mktemp("hostile"), max_body_bytes=4096, allowed_hosts=hosts) as service:
        yield service


@pytest.fixture
def connect(service):
    """Opens bare connections to the service."""
    address = urlsplit(service.base_url)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=20))


def read_answer(connection):
    """Status and problem of what comes until the service closes the connection; None if it says nothing."""
    text = b""
    while part := connection.recv(65536):
        text += part
    if not text:
        return None
    head, _, body = text.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    return int(head.split()[1]), json.loads(body)["code"]


def status_of_answer(connection):
    """Of one whole answer, read to its end, on a connection that may stay open."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def refused(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def is_answered(service):
    return service.client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{f"X-{number}": "1" for number in range(101)}, {f"X-{number}": "x" * 1000 for number in range(20)}],
    ids=["many", "long"],
)
def test_a_flood_of_headers(service, headers):
    assert refused(service.client.get("/v1/jobs", headers=headers)) == (431, "head_too_large")
    assert is_answered(service)


def test_a_head_without_an_end(service, connect):
    connection = connect()
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000)
    assert read_answer(connection) == (431, "head_too_large")
    assert is_answered(service)


def test_a_long_path_and_a_long_query(service):
    assert refused(service.client.get("/v1/" + "x" * 9000)) == (414, "target_too_long")
    assert refused(service.client.get("/v1/jobs", params={"name": "x" * 9000})) == (414, "target_too_long")


def test_what_is_no_http(service, connect):
    connection = connect()
    connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert read_answer(connection) == (400, "bad_request")
    assert is_answered(service)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/validate"])
def test_a_flood_of_body(service, path, declared):
    content = b" " * 5000 if declared else (b" " * 1000 for _ in range(1000))
    try:
        answer = service.client.post(path, content=content, headers=JSON)
    except httpx.WriteError:  # the service may hang up while there is more to come
        assert not declared
    else:
        assert refused(answer) == (413, "body_too_large")
    assert is_answered(service)


def test_a_body_that_drips(service, connect, monkeypatch):
    monkeypatch.setattr(middleware, "PATIENCE_S", 0.3)
    connection = connect()
    head = f"Host: {urlsplit(service.base_url).netloc}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    key = service.client.headers["Authorization"]
    connection.sendall(f"POST /v1/jobs HTTP/1.1\r\n{head}Authorization: {key}\r\n\r\n[".encode())
    assert is_answered(service)
    assert read_answer(connection) == (408, "body_too_slow")


@pytest.mark.parametrize(("sent", "answer"), [(b"GET /livez HT", (408, "head_too_slow")), (b"", None)])
def test_a_head_that_does_not_come(service, connect, monkeypatch, sent, answer):
    monkeypatch.setattr(connections, "HEAD_PATIENCE_S", 0.3)
    connection = connect()
    connection.sendall(sent)
    assert is_answered(service)
    assert read_answer(connection) == answer


def test_a_later_head_that_does_not_come(service, connect, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_PATIENCE_S", 0.3)
    connection = connect()
    connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {urlsplit(service.base_url).netloc}\r\n\r\n".encode())
    assert status_of_answer(connection) == 200
    connection.sendall(b"GET")
    assert read_answer(connection) == (408, "head_too_slow")


def test_a_body_that_goes_on_after_it_was_refused(service, connect, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_PATIENCE_S", 0.3)
    connection = connect()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: {urlsplit(service.base_url).netloc}\r\nContent-Length: 99999\r\n\r\n"
    connection.sendall(head.encode())
    assert status_of_answer(connection) == 413
    with suppress(ConnectionError):
        for _ in range(100):
            connection.sendall(b"x")
            connection.settimeout(0.05)
            try:
                assert connection.recv(65536) == b""
            except TimeoutError:
                continue
            break
        else:
            raise AssertionError("the connection is still open")
    assert is_answered(service)


def test_a_body_without_end_that_was_refused_already(service, connect):
    connection = connect()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: {urlsplit(service.base_url).netloc}\r\nContent-Length: 999999999\r\n\r\n"
    connection.sendall(head.encode())
    assert status_of_answer(connection) == 413
    with pytest.raises(ConnectionError):
        connection.sendall(b" " * 2**26)
    assert is_answered(service)


@pytest.mark.parametrize("key", [True, False])
def test_a_body_in_crumbs(service, connect, monkeypatch, key):
    """Each chunk costs the event loop the same, whatever its size."""
    monkeypatch.setattr(connections, "FREE_CHUNKS", 100)
    connection = connect()
    head = [f"Host: {urlsplit(service.base_url).netloc}", "Content-Type: application/json"]
    head += [f"Authorization: {service.client.headers['Authorization']}"] if key else []
    request = "\r\n".join(["POST /v1/jobs HTTP/1.1", *head, "Transfer-Encoding: chunked", "", ""])
    connection.sendall(request.encode() + b"1\r\n \r\n" * 200)
    assert read_answer(connection) == (413, "body_in_crumbs")
    assert is_answered(service)


def test_hanging_up_within_a_body_is_no_bug(service, connect, caplog):
    caplog.set_level("INFO", "api.access")
    connection = connect()
    head = f"Host: {urlsplit(service.base_url).netloc}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    key = service.client.headers["Authorization"]
    connection.sendall(f"POST /v1/jobs HTTP/1.1\r\n{head}Authorization: {key}\r\n\r\n[".encode())
    assert is_answered(service)
    caplog.clear()
    connection.close()
    deadline = time.monotonic() + 10
    while "answered" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert is_answered(service)  # so what was logged with it is there as well
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_a_body_in_some_chunks(service):
    spec = json.dumps(SPEC).encode()
    answer = service.client.post("/v1/jobs/validate", content=(bytes([byte]) for byte in spec), headers=JSON)
    assert answer.json()["valid"]


def test_hundreds_of_connections_that_say_nothing(service, connect):
    for _ in range(300):
        connect()
    assert is_answered(service)


def test_a_patient_reader_is_not_cut_off(service, monkeypatch):
    """Both limits are for requests; waiting for an answer has its own."""
    monkeypatch.setattr(connections, "HEAD_PATIENCE_S", 0.2)
    monkeypatch.setattr(middleware, "PATIENCE_S", 0.2)
    job = service.submit()
    tag = service.client.get(job["links"]["self"]).headers["ETag"]
    answer = service.client.get(job["links"]["self"], params={"wait": 1}, headers={"If-None-Match": tag})
    assert answer.status_code == 304
    service.client.post(job["links"]["cancel"])


@pytest.mark.parametrize("ranges", [2, 500])
def test_a_flood_of_ranges_is_one_file(service, ranges):
    content = f"/v1/artifacts/{artifact(service)}/content"
    wanted = ",".join(f"{number}-{number}" for number in range(ranges))
    answer = service.client.get(content, headers={"Range": f"bytes={wanted}"})
    assert (answer.status_code, answer.content) == (200, service.client.get(content).content)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:{port}", "localhost:1", "localhost", "a@localhost:{port}", "", "\xff"],
)
def test_a_host_that_this_is_not(service, host):
    """A page of `evil.example` lets that name point to this address."""
    port = urlsplit(service.base_url).port
    answer = service.client.get("/v1/jobs", headers={"Host": host.format(port=port).encode("latin-1")})
    assert refused(answer) == (421, "host_not_allowed")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_scheme_that_no_request_has(service, scheme):
    """The server takes a proxy's word for it, and whoever calls from this host is one."""
    answer = service.client.get("/v1/jobs", headers={"Host": "localhost", "X-Forwarded-Proto": scheme})
    assert refused(answer) == (421, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
def test_a_host_that_this_is(service, host):
    port = urlsplit(service.base_url).port
    assert service.client.get("/v1/jobs", headers={"Host": host.format(port=port)}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("sentinel.example", 200), ("sentinel.example:9000", 200), ("other.example:8443", 200), ("other.example", 421)],
)
def test_hosts_that_the_operator_allows(service, host, status):
    assert service.client.get("/v1/jobs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200), ("/metrics", 421), ("/docs", 421)])
def test_a_health_check_may_call_it_by_any_address(service, path, status):
    assert service.client.get(path, headers={"Host": "127.0.0.1:8080"}).status_code == status


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[", "\xff"])
def test_a_page_of_somebody_else_s(service, spec, origin):
    headers = {"Origin": origin.encode("latin-1")}
    assert refused(service.client.post("/v1/jobs", json=spec, headers=headers)) == (403, "origin_not_allowed")
    read = service.client.get("/v1/jobs", headers=headers)
    assert read.status_code == 200
    assert not [name for name in read.headers if name.startswith("access-control")]
    asked = service.client.options("/v1/jobs", headers=headers | {"Access-Control-Request-Method": "POST"})
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_a_page_of_its_own(service, spec):
    answer = service.client.post("/v1/jobs/validate", json=spec, headers={"Origin": service.base_url})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (LAUGHS, YAML),
        (MERGES, YAML),
        ("a: &a [*a]", YAML),
        ("[" * 3000, YAML),
        ("{a: " * 1000, YAML),
        ("[" * 40 + "]" * 40, YAML),
        ("a: .nan", YAML),
        ("a: 2026-01-01", YAML),
        ("1: 2", YAML),
        ("a: 0x" + "f" * 3000, YAML),
        ("a: !!binary aGk=", YAML),
        ("a: 1" + ":1" * 2000, YAML),
        ("a: 1" + ":1" * 400 + ".5", YAML),
        ("%TAG !e! tag:e:\n---\na", YAML),
        ("a: b".encode("utf-16"), YAML),
        (b'{"a": "\xff"}', JSON),
        ("[" * 40 + "]" * 40, JSON),
        ('{"a": NaN}', JSON),
        ('{"a": 1e999}', JSON),
        ('{"name": "\\ud800"}', JSON),
        ('{"\\u0000": 1}', JSON),
        ('{"seed": ' + "9" * 3000 + "}", JSON),
        ('{"seed": ' + "9" * 30 + "}", JSON),
    ],
)
def test_a_document_that_says_too_much(service, body, headers):
    answer = service.client.post("/v1/jobs", content=body, headers=headers)
    assert refused(answer) == (422, "spec_invalid")
    assert [error["code"] for error in answer.json()["errors"]] == ["document_unparsable"]
    assert is_answered(service)


@pytest.mark.parametrize(
    ("path", "document", "codes"),
    [
        ("/v1/keys", {"name": "x", "scopes": [1] * 1000}, ["too_long"]),
        ("/v1/uploads", {"kind": "model", "files": [1] * 5_001}, ["too_long"]),
        ("/v1/uploads", {"kind": "model", "files": [{}] * 500}, ["missing"] * 100),
        ("/v1/keys", {"name": "x", "scopes": ["read"], **dict.fromkeys(map(str, range(100)))}, ["too_many_fields"]),
    ],
    ids=["scopes", "files", "in files", "fields"],
)
def test_a_document_of_very_many_mistakes(tmp_path, path, document, codes):
    with running(tmp_path) as service, service.client_of("ann", "read", "submit", "admin") as client:
        answer = client.post(path, json=document)
        assert refused(answer) == (422, "request_invalid")
        assert [error["code"] for error in answer.json()["errors"]] == codes


@pytest.mark.parametrize(
    "part",
    ["%00", "%ff", "%ed%a0%80", "..%2f..%2fetc", "%0d%0aX:1", ";x=1", "%F0%9F%92%A3", "x" * 65, "%"],
)
@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/logs", "/v1/artifacts/{}/content", "/docs/{}", "/{}"])
def test_odd_characters_in_a_path(service, path, part):
    answer = service.client.get(path.format(part))
    assert answer.status_code in (404, 422)
    refused(answer)


@pytest.mark.parametrize(
    "query", ["name=%00", "name=%ff", "cursor=%ff", "state=%00", "limit=1e3", "name=a&name=b", "=", "&&"]
)
def test_odd_characters_in_a_query(service, query):
    assert service.client.get(f"/v1/jobs?{query}").status_code in (200, 400, 422)


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"],
)
def test_times_at_the_ends_of_time(service, moment):
    with service.client_of("ann", *Scope) as everything:
        answers = [
            *(everything.get("/v1/jobs", params={name: moment}) for name in ("created_after", "created_before")),
            *(everything.post("/v1/jobs", json=SPEC, params={name: moment}) for name in ("not_before", "deadline")),
            *(everything.get("/v1/usage", params={name: moment}) for name in ("from", "to")),
            everything.post("/v1/keys", json={"name": "k", "scopes": ["read"], "expires_at": moment}),
        ]
    assert [refused(answer) for answer in answers] == [(422, "request_invalid")] * 7
    assert {error["message"] for answer in answers for error in answer.json()["errors"]} == {
        "Write a time of the years 1970 to 9998 (UTC)"
    }


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "9998-12-31T23:59:59Z", "9998-12-31T23:59:59+14:00"])
def test_times_near_the_ends_of_time(service, moment):
    assert service.client.get("/v1/jobs", params={"created_after": moment}).status_code == 200


@pytest.mark.parametrize("media_type", PARSERS)
def test_a_document_of_very_many_values(media_type):
    most = {"application/json": 1000, "application/yaml": 500}[media_type]
    assert parse(media_type, f"[{'0,' * (most - 2)}0]".encode())  # the list is a value, too
    with pytest.raises(Unparsable, match=f"{most} values"):
        parse(media_type, f"[{'0,' * (most - 1)}0]".encode())


@pytest.mark.parametrize("media_type", PARSERS)
def test_a_field_that_stands_twice(media_type):
    with pytest.raises(Unparsable, match="the field 'steps' stands twice"):
        parse(media_type, b'{"heal": {"steps": 1, "steps": 2}}')


@pytest.mark.parametrize("value", ["1:30", "1:30:15", "-1:30.5", "190:20:30.15", "!!int 1:30", "!!float 1:30"])
def test_a_number_to_base_60(value):
    with pytest.raises(Unparsable, match="base 60"):
        parse("application/yaml", f"steps: {value}".encode())
    assert parse("application/yaml", b'name: "1:30"') == {"name": "1:30"}


@pytest.mark.parametrize(
    "value", ["9" * 33, f"0x{'f' * 40}", f"-0b{'1' * 40}", f"1.{'3' * 40}", "1" + ":1" * 20, f"!!int {'9' * 33}"]
)
def test_a_long_number_of_yaml(value):
    with pytest.raises(Unparsable, match="32 characters"):
        parse("application/yaml", f"seed: {value}".encode())


def test_long_text_that_begins_like_a_number():
    commit = "0123456789abcdef0123456789abcdef01234567"
    quoted = "9" * 40
    read = parse("application/yaml", f"revision: {commit}\nname: '{quoted}'".encode())
    assert read == {"revision": commit, "name": quoted}


@pytest.mark.parametrize("value", ["2026-11-29", "2001-12-14t21:59:43.10-05:00", "!!timestamp 2026-11-29"])
def test_a_date_of_yaml(value):
    with pytest.raises(Unparsable, match="write it in quotes"):
        parse("application/yaml", f"name: {value}".encode())


def test_a_long_document_of_yaml():
    assert parse("application/json", b"[" + b" " * 100_000 + b"]") == []
    with pytest.raises(Unparsable, match="send JSON"):
        parse("application/yaml", b"[" + b" " * 100_000 + b"]")
