"""The edge of the service: keys and scopes, problem documents, request ids, health, the API's own description."""

import io
import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta

import httpx
import jsonschema_rs
import pytest
from sqlalchemy import text

from api.headers import EVERY_ANSWER
from api.main import create_app
from api.settings import Settings
from api.store.keys import create_key
from api.store.models import ApiKey
from sentinel.utils.logs import JsonFormatter

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def test_a_key_does_only_what_its_scopes_say(service, spec):
    with service.client_of("ann", "read") as reader, service.client_of("ann", "submit") as submitter:
        refused = reader.post("/v1/jobs", json=spec)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert reader.get("/v1/jobs").status_code == 200
        assert submitter.post("/v1/jobs", json=spec).status_code == 201
        assert submitter.get("/v1/jobs").status_code == 403


@on_both_databases
def test_expired_and_revoked_keys_are_no_keys(service):
    past = datetime.now(UTC) - timedelta(days=1)
    with service.database.transaction() as session:
        _, expired = create_key(session, "ann", "old", ["read"], expires_at=past)
        key, revoked = create_key(session, "ann", "gone", ["read"])
        session.get(ApiKey, key.id).revoked_at = past
    for plaintext in (expired, revoked):
        answer = httpx.get(f"{service.base_url}/v1/jobs", headers={"Authorization": f"Bearer {plaintext}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "key_required")


def test_the_framework_refuses_in_the_same_form(service):
    unknown = service.client.get("/v1/nothing")
    wrong = service.client.delete("/v1/jobs")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, POST"
    for answer in (unknown, wrong):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(answer.json()) == {
            "type", "title", "status", "detail", "instance", "code", "request_id", "next_step", "errors",
        }  # fmt: skip


def test_a_pointer_leads_to_a_field_of_whatever_name(service):
    with service.client_of("ann", "admin") as client:
        answer = client.post("/v1/keys", json={"name": "x", "scopes": ["admin"], "a/b~c": 1})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/a~1b~0c"]


def test_options_say_what_a_path_allows_to_anybody_but_other_sites(service):
    answers = [httpx.options(f"{service.base_url}{path}") for path in ("/v1/jobs", "/v1/jobs/validate", "/v1/nothing")]
    assert [answer.status_code for answer in answers] == [204, 204, 404]
    assert [answer.headers.get("Allow") for answer in answers] == ["GET, POST", "POST", None]
    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control")]


def test_a_bug_is_a_problem_without_its_inside(service):
    @service.app.get("/broken")
    def broken():
        raise ZeroDivisionError("secret")

    answer = httpx.get(f"{service.base_url}/broken", headers={"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal_error", "r-1")
    assert answer.headers["X-Request-Id"] == "r-1"
    assert "secret" not in answer.text
    assert {name: answer.headers[name] for name in EVERY_ANSWER} == EVERY_ANSWER


@pytest.mark.parametrize("given", [None, "", "with space", "x" * 65, "a{b}"])
def test_a_request_id_is_made_where_none_is_sane(service, given):
    answer = httpx.get(f"{service.base_url}/livez", headers={} if given is None else {"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] not in ("", given)


@pytest.fixture
def logged():
    """Wait for one request's line from each logger: it comes once the response is out, so the client may be first."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    def lines_of(request_id, *loggers):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = map(json.loads, stream.getvalue().splitlines())
            found = {line["logger"]: line for line in lines if line.get("request_id") == request_id}
            if found.keys() >= set(loggers):
                return [found[logger] for logger in loggers]
            time.sleep(0.01)
        raise AssertionError(f"only {found}")

    yield lines_of
    root.removeHandler(handler)
    root.setLevel(level)


def test_every_request_is_one_line_in_the_log(service, logged):
    answer = service.client.get("/v1/jobs?name=private", headers={"X-Request-Id": "seen"})
    (line,) = logged("seen", "api.access")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/jobs", 200)
    assert line["trace_id"] == answer.headers["X-Trace-Id"]
    assert "private" not in str(line)
    assert "sntl" not in str(line)
    assert line["ms"] > 0


def test_the_server_s_line_about_a_bug_names_the_request(service, logged):
    @service.app.get("/broken")
    def broken():
        raise ZeroDivisionError

    answer = httpx.get(f"{service.base_url}/broken", headers={"X-Request-Id": "bug"})
    bug, access = logged("bug", "uvicorn.error", "api.access")
    assert (bug["level"], access["status"]) == ("error", 500)
    assert "ZeroDivisionError" in bug["exception"]
    assert bug["trace_id"] == access["trace_id"] == answer.headers["X-Trace-Id"]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_a_request_s_trace_is_its_job_s_and_a_retry_has_its_own(service, spec):
    submitted = service.client.post("/v1/jobs", json=spec, headers={"traceparent": PARENT})
    assert submitted.headers["X-Trace-Id"] == submitted.json()["trace_id"] == TRACE
    here = submitted.json()["links"]["self"]
    other = service.client.post(f"{here}/cancel")
    assert other.headers["X-Trace-Id"] != TRACE == other.json()["trace_id"]
    retried = service.client.post(f"{here}/retry")
    assert retried.json()["trace_id"] == retried.headers["X-Trace-Id"] != TRACE
    assert retried.json()["parent_id"] == submitted.json()["id"]
    assert service.claim().trace_id == retried.json()["trace_id"]


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        ["nonsense"],
        [PARENT.upper()],
        [PARENT.replace("00-", "ff-", 1)],
        [f"00-{'0' * 32}-00f067aa0ba902b7-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-00f067aa0ba902b7"],
        [f"{PARENT}-more"],
        [PARENT, PARENT],
    ],
)
def test_without_one_valid_traceparent_a_new_trace_begins(service, given):
    answers = [httpx.get(f"{service.base_url}/livez", headers=[("traceparent", each) for each in given]) for _ in "ab"]
    first, second = (answer.headers["X-Trace-Id"] for answer in answers)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert len({first, second, TRACE, "0" * 32}) == 4


def test_a_traceparent_of_a_later_version_is_understood(service):
    answer = httpx.get(f"{service.base_url}/livez", headers={"traceparent": f"cc{PARENT[2:]}-what-comes"})
    assert answer.headers["X-Trace-Id"] == TRACE


def test_without_redis_the_service_is_degraded_but_accepts(service, spec):
    answer = httpx.get(f"{service.base_url}/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "degraded", "redis": False})
    assert service.client.post("/v1/jobs", json=spec).status_code == 201


def test_a_database_without_its_schema_is_not_ready(tmp_path, serve):
    with serve(create_app(Settings(home=tmp_path, redis_url=f"redis+socket://{tmp_path}/none.sock"))) as base_url:
        live, ready = httpx.get(f"{base_url}/livez"), httpx.get(f"{base_url}/readyz")
        jobs = httpx.get(f"{base_url}/v1/jobs", headers={"Authorization": "Bearer sntl_a_b"})
    assert live.status_code == 200
    assert (ready.status_code, ready.json()["code"]) == (503, "unready")
    assert (jobs.status_code, jobs.json()["code"]) == (503, "unready")
    assert int(ready.headers["Retry-After"]) > 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_goes_away_is_not_ready(service):
    assert httpx.get(f"{service.base_url}/readyz").status_code == 200
    with service.database.engine.connect() as connection:
        connection.execute(text("ALTER TABLE alembic_version RENAME TO gone"))
        connection.commit()
    assert httpx.get(f"{service.base_url}/readyz").status_code == 503


def test_the_description_is_whole(service):
    document = httpx.get(f"{service.base_url}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            problems = {status: r for status, r in operation["responses"].items() if int(status) >= 400}
            assert {"401", "403", "422", "503"} <= set(problems) or not path.startswith(("/v1/", "/hub/"))
            assert all(set(r["content"]) == {"application/problem+json"} for r in problems.values())
            assert all("X-Request-Id" in response["headers"] for response in operation["responses"].values())
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/yaml"}
    assert "prune" in document["components"]["schemas"]["Spec"]["required"]
    assert "heal" not in document["components"]["schemas"]["Spec"]["required"]


def bodies_and_parameters(operation):
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from body.get("content", {}).values()
    yield from (parameter for parameter in operation.get("parameters", []) if parameter["required"])


def test_everything_has_an_example_and_it_is_one(service):
    document = httpx.get(f"{service.base_url}/openapi.json").json()
    seen = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            for described in bodies_and_parameters(operation):
                values = [each["value"] for each in described.get("examples", {}).values()] or [described["example"]]
                schema = described["schema"] | {"components": document["components"]}
                for value in values:
                    jsonschema_rs.validate(schema, value)
                    seen += 1
    assert seen > 200


def test_the_page_about_the_interface_needs_nothing_from_elsewhere(service):
    page = httpx.get(f"{service.base_url}/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "//" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(loaded) == 5
    for path in loaded:
        assert httpx.get(f"{service.base_url}/{path}").status_code == 200
    assert httpx.get(f"{service.base_url}/docs/../page.html").status_code == 404


def test_strategies_are_listed(service):
    assert len(service.client.get("/v1/strategies").json()["data"]) >= 4
