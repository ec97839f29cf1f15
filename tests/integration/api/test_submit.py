"""Submitting: what is promised, what is refused, and what a retry gets."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from api.store import jobs as store

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
FIVE_MISTAKES = {
    "model": {"source": "path", "path": "/etc"},
    "prune": {"strategy": "psychic", "target": {"sparsity": 1.5}, "cycles": 0},
    "colour": "red",
}


@on_both_databases
def test_a_job_is_stored_with_its_first_event_before_201(service, spec):
    answer = service.client.post("/v1/jobs", json=spec, headers={"X-Request-Id": "mine-1"})
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert re.fullmatch(r'"1\..{8}"', answer.headers["ETag"])  # its version, and why it waits
    assert (job["state"], job["name"], job["request_id"]) == ("queued", "small", "mine-1")
    assert job["spec"]["heal"]["steps"] == 200
    assert (job["result"], job["error"], job["checkpoint_uri"], job["artifacts"]) == (None, None, None, [])
    with service.database.reading() as session:
        assert [event.seq for event in store.list_events(session, job["id"], limit=9)] == [1]


@on_both_databases
def test_workers_take_what_is_due_by_priority_then_age(service, spec):
    def submit(**query):
        return service.client.post("/v1/jobs", json=spec, params=query).json()["id"]

    submit(priority=9, not_before="2999-01-01T00:00:00Z")
    first, second = submit(), submit(not_before="2001-01-01T00:00:00+02:00")
    urgent, idle = submit(priority=2), submit(priority=-1)
    assert [service.claim().job_id for _ in range(4)] == [urgent, first, second, idle]
    shown = service.client.get("/v1/jobs").json()["data"]
    assert [(job["state"], job["priority"]) for job in shown][-1] == ("queued", 9)
    assert shown[-1]["not_before"] == "2999-01-01T00:00:00Z"


@pytest.mark.parametrize("query", [{"priority": 1001}, {"priority": "high"}, {"not_before": "2026-01-01T00:00:00"}])
def test_when_and_how_urgently_are_checked(service, spec, query):
    answer = service.client.post("/v1/jobs", json=spec, params=query)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/query/{name}" for name in query]


def test_a_deadline_is_shown_and_must_be_possible(service, spec):
    def submit(**query):
        return service.client.post("/v1/jobs", json=spec, params=query)

    assert submit(deadline="2999-01-01T00:00:00Z").json()["deadline"] == "2999-01-01T00:00:00Z"
    passed = submit(deadline="2001-01-01T00:00:00Z")
    assert (passed.status_code, passed.json()["code"]) == (422, "deadline_invalid")
    assert len(service.client.get("/v1/jobs").json()["data"]) == 1


def test_an_idempotency_key_stands_for_when_and_how_urgently_too(service, spec):
    def submit(**query):
        return service.client.post("/v1/jobs", json=spec, params=query, headers={"Idempotency-Key": "k"})

    job = submit(priority=1, not_before="2026-01-01T00:00:00Z").json()["id"]
    assert submit(priority=1, not_before="2026-01-01T01:00:00+01:00").json()["id"] == job
    assert submit(priority=2).json()["code"] == "idempotency_mismatch"


def test_without_a_commit_there_is_no_201(service, spec):
    client, engine = service.client, service.database.engine
    inserted = []

    def notice(_connection, _cursor, statement, *_rest):
        inserted.extend(["job"] if statement.startswith("INSERT INTO jobs ") else [])

    def refuse(_connection):
        if inserted:
            raise OperationalError("COMMIT", {}, Exception("disk full"))

    event.listen(engine, "after_cursor_execute", notice)
    event.listen(engine, "commit", refuse)
    answer = client.post("/v1/jobs", json=spec)
    event.remove(engine, "commit", refuse)
    event.remove(engine, "after_cursor_execute", notice)
    assert (answer.status_code, answer.json()["code"], inserted) == (503, "unready", ["job"])
    assert client.get("/v1/jobs").json()["data"] == []


def test_yaml_is_as_good_as_json(service, spec):
    body = "model: builtin/llama\nprune: {target: {sparsity: 0.5}}\n"
    answer = service.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/yaml; charset=utf-8"})
    assert answer.status_code == 201
    assert answer.json()["spec"]["model"]["id"] == "llama"


def test_five_mistakes_are_one_problem(service):
    answer = service.client.post("/v1/jobs", json=FIVE_MISTAKES)
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {error["pointer"] for error in problem["errors"]} == {
        "/model/path",
        "/prune/strategy",
        "/prune/target/sparsity",
        "/prune/cycles",
        "/colour",
    }
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_path_outside_the_roots_has_its_own_code(service, spec):
    problem = service.client.post("/v1/jobs", json=spec | {"model": "/etc/model"}).json()
    assert (problem["status"], problem["code"]) == (422, "path_not_allowed")
    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/model", "path_not_allowed")]
    assert "roots" in problem["next_step"]


def test_validate_finds_the_same_and_stores_nothing(service, spec):
    bad = service.client.post("/v1/jobs/validate", json=FIVE_MISTAKES)
    good = service.client.post("/v1/jobs/validate", json=spec)
    assert (bad.status_code, bad.json()["valid"], len(bad.json()["errors"])) == (200, False, 5)
    assert (good.status_code, good.json()["valid"], good.json()["errors"]) == (200, True, [])
    assert good.json()["resolved_spec"]["prune"]["schedule"] == "cubic"
    assert service.client.get("/v1/jobs").json()["data"] == []


@on_both_databases
def test_a_retry_with_the_same_key_gets_the_same_job(service, spec):
    headers = {"Idempotency-Key": "k-1"}
    first = service.client.post("/v1/jobs", json=spec, headers=headers)
    spaced = json.dumps(spec, indent=4, sort_keys=True)
    again = service.client.post("/v1/jobs", content=spaced, headers=headers | {"Content-Type": "application/json"})
    assert "Idempotent-Replayed" not in first.headers
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.json() == first.json()
    other = service.client.post("/v1/jobs", json=spec | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_another_tenant_may_use_the_same_key(service, spec):
    headers = {"Idempotency-Key": "k-1"}
    with service.client_of("bob") as bob:
        assert (
            service.client.post("/v1/jobs", json=spec, headers=headers).json()["id"]
            != (bob.post("/v1/jobs", json=spec, headers=headers).json()["id"])
        )


@on_both_databases
def test_racing_retries_make_one_job(service, spec):
    def post(_):
        return service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(service.client.get("/v1/jobs").json()["data"]) == 1


@on_both_databases
def test_of_racing_requests_with_one_key_one_wins(service, spec):
    """Nobody is told to come again: whoever loses waits for the winner's commit."""

    def post(seed):
        return service.client.post("/v1/jobs", json=spec | {"seed": seed}, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"idempotency_mismatch"}
    assert len(service.client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 422, "spec_invalid"),
        (b"\xff\xfe", "application/json", 422, "spec_invalid"),
        (b"[" * 4000, "application/json", 422, "spec_invalid"),
        (b"a: [", "application/yaml", 422, "spec_invalid"),
        (b"!!python/object/apply:os.system [ls]", "application/yaml", 422, "spec_invalid"),
        (b"a: 2001-99-99", "application/yaml", 422, "spec_invalid"),
        (b"", "application/json", 422, "spec_invalid"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "media_type_unsupported"),
        (b" " * 5000, "application/json", 413, "body_too_large"),
    ],
)
def test_a_body_that_is_no_spec_is_refused(service, body, content_type, status, code):
    for path in ("/v1/jobs", "/v1/jobs/validate"):
        answer = service.client.post(path, content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_body_of_undeclared_length_is_counted(service):
    chunks = (b" " * 1000 for _ in range(9))
    answer = service.client.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
