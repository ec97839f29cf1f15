"""The edge of the service: keys and scopes, problem documents, request ids, health, the API's own description."""

import json
import logging
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text

from api.main import create_app
from api.settings import Settings
from api.store.keys import create_key
from api.store.models import ApiKey

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


OPEN = {"/livez", "/readyz", "/metrics", "/openapi.json"}


def test_every_route_but_health_needs_a_key(service):
    routes = [(method, r.path) for r in iter_route_contexts(service.app.routes) for method in r.methods]
    assert len(routes) >= 16
    assert {path for _, path in routes if not path.startswith("/v1/")} == OPEN
    for method, path in routes:
        for headers in ({}, {"Authorization": "Bearer sntl_0_x"}, {"Authorization": "Basic eDp5"}):
            answer = httpx.request(method, service.base_url + path, headers=headers)
            assert (answer.status_code == 401) == (path not in OPEN), (method, path)
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert answer.headers["Content-Type"] == "application/problem+json"


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
    assert set(wrong.headers["Allow"].split(", ")) >= {"GET"} or wrong.headers["Allow"] in ("GET", "POST")
    for answer in (unknown, wrong):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(answer.json()) == {
            "type", "title", "status", "detail", "instance", "code", "request_id", "next_step", "errors",
        }  # fmt: skip


def test_a_bug_is_a_problem_without_its_inside(service):
    @service.app.get("/broken")
    def broken():
        raise ZeroDivisionError("secret")

    answer = httpx.get(f"{service.base_url}/broken", headers={"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal_error", "r-1")
    assert answer.headers["X-Request-Id"] == "r-1"
    assert "secret" not in answer.text


@pytest.mark.parametrize("given", [None, "", "with space", "x" * 65, "a{b}"])
def test_a_request_id_is_made_where_none_is_sane(service, given):
    answer = httpx.get(f"{service.base_url}/livez", headers={} if given is None else {"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] not in ("", given)


def test_every_request_is_one_line_in_the_log(service, caplog):
    with caplog.at_level(logging.INFO, logger="api.access"):
        service.client.get("/v1/jobs", headers={"X-Request-Id": "seen"})
        # The line is written once the response is out, so the client may be here first.
        deadline = time.monotonic() + 10
        while not (seen := _logged(caplog, "seen")) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [(line["method"], line["path"], line["status"]) for line in seen] == [("GET", "/v1/jobs", 200)]


def _logged(caplog, request_id):
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "api.access"]
    return [line for line in lines if line["request_id"] == request_id]


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
            assert {"401", "403", "422", "503"} <= set(problems) or not path.startswith("/v1")
            assert all(set(r["content"]) == {"application/problem+json"} for r in problems.values())
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/yaml"}
    assert "prune" in document["components"]["schemas"]["Spec"]["required"]
    assert "heal" not in document["components"]["schemas"]["Spec"]["required"]
    assert httpx.get(f"{service.base_url}/docs").status_code == 404


def test_strategies_are_listed(service):
    assert len(service.client.get("/v1/strategies").json()["data"]) >= 4
