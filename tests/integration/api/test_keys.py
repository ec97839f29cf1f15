"""Keys over HTTP: who may make, see, change and revoke them, and what a key is held to."""

import hashlib

import httpx
import pytest
from typer.testing import CliRunner

from api.keys.__main__ import cli
from api.store.keys import create_key
from api.store.models import ApiKey

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def boss(service):
    """A client that may do everything in the tenant of `service.client`."""
    with service.client_of("ann", "read", "submit", "admin") as client:
        yield client


def with_key(service, plaintext):
    return httpx.Client(base_url=service.base_url, headers={"Authorization": f"Bearer {plaintext}"}, timeout=20)


def make(boss, **order):
    answer = boss.post("/v1/keys", json={"name": "ci", "scopes": ["read", "submit"]} | order)
    assert answer.status_code == 201, answer.text
    return answer.json()


@on_both_databases
def test_a_key_is_made_shown_once_changed_and_revoked(service, boss, spec):
    made = make(boss, expires_in_days=2, quotas={"max_queued_jobs": 5}, rate_limit="100/minute")
    here, plaintext = f"/v1/keys/{made['id']}", made.pop("key")
    assert plaintext.startswith(f"sntl_{made['id']}_")
    assert (made["name"], made["scopes"], made["rate_limit"]) == ("ci", ["read", "submit"], "100/minute")
    assert made["quotas"] == {
        "max_queued_jobs": 5, "max_running_jobs": None, "max_gpu_seconds": None, "max_stored_bytes": None,
    }  # fmt: skip
    assert boss.get(here).json() == made
    with with_key(service, plaintext) as client:
        assert client.post("/v1/jobs", json=spec).json()["key_id"] == made["id"]
        changed = boss.patch(here, json={"expires_at": None, "quotas": {"max_running_jobs": 1}}).json()
        assert changed == made | {"expires_at": None, "quotas": made["quotas"] | {"max_running_jobs": 1}}
        assert boss.patch(here, json={"name": None}).json() == changed
        revoked = boss.post(f"{here}/revoke").json()
        assert revoked["revoked_at"] is not None
        assert boss.post(f"{here}/revoke").json() == revoked == boss.get(here).json()
        assert client.get("/v1/jobs").json()["code"] == "key_required"


def test_the_answer_that_has_the_secret_is_kept_nowhere(boss):
    answer = boss.post("/v1/keys", json={"name": "ci", "scopes": ["read"]})
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"] == f"/v1/keys/{answer.json()['id']}"
    _, _, secret = answer.json()["key"].split("_", 2)
    for path in ("/v1/keys", "/v1/audit", "/v1/usage"):
        assert secret not in boss.get(path).text


@on_both_databases
def test_pages_of_keys_neither_shift_nor_repeat(boss):
    names = [make(boss, name=f"k{number}")["name"] for number in range(4)]
    first = boss.get("/v1/keys", params={"limit": 2}).json()
    make(boss, name="later")
    second = boss.get("/v1/keys", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [key["name"] for key in first["data"] + second["data"]] == [*reversed(names), "ann"]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    for cursor in ("!", "a2V5", "a"):
        answer = boss.get("/v1/keys", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


def test_admin_alone_opens_what_it_is_for_and_nothing_else(service, spec):
    with service.client_of("ann", "admin") as admin:
        assert [admin.get(f"/v1/{path}").status_code for path in ("keys", "usage", "audit")] == [200, 200, 200]
        for answer in (admin.get("/v1/jobs"), admin.post("/v1/jobs", json=spec)):
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_without_admin_every_method_is_refused(service):
    made = {"name": "k", "scopes": ["read"]}
    for answer in (
        service.client.get("/v1/keys"),
        service.client.post("/v1/keys", json=made),
        service.client.get("/v1/keys/x"),
        service.client.patch("/v1/keys/x", json={}),
        service.client.post("/v1/keys/x/revoke"),
        service.client.get("/v1/usage"),
        service.client.get("/v1/audit"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_nobody_gives_what_he_has_not(service):
    with service.client_of("ann", "read", "admin") as admin:
        answer = admin.post("/v1/keys", json={"name": "more", "scopes": ["read", "submit"]})
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert len(admin.get("/v1/keys").json()["data"]) == 1


def test_mistakes_in_an_order_are_named_at_once(boss):
    answer = boss.post(
        "/v1/keys",
        json={"name": "", "scopes": ["all"], "quotas": {"max_queued_jobs": -1}, "rate_limit": "fast", "a": 1},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {"/name", "/scopes/0", "/quotas/max_queued_jobs", "/rate_limit", "/a"}
    both = {"name": "k", "scopes": ["read"], "expires_in_days": 1, "expires_at": "2999-01-01T00:00:00Z"}
    assert boss.post("/v1/keys", json=both).status_code == 422
    for no_time in (0, 1.5, True, "0"):
        odd = {"name": "k", "scopes": ["read"], "expires_at": no_time}
        assert boss.post("/v1/keys", json=odd).json()["errors"][0]["pointer"] == "/expires_at"


@on_both_databases
def test_another_tenant_s_keys_usage_and_log_are_not_there(service, boss):
    service.submit()
    with service.database.transaction() as session:
        theirs = create_key(session, "bob", "theirs", ["read"])[0].id
    answers = [
        boss.get(f"/v1/keys/{theirs}"),
        boss.patch(f"/v1/keys/{theirs}", json={"name": "mine"}),
        boss.post(f"/v1/keys/{theirs}/revoke"),
        boss.get("/v1/usage", params={"key_id": theirs}),
        boss.get("/v1/audit", params={"key_id": theirs}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "key_not_found")] * 5
    with service.client_of("bob", "admin") as bob:
        assert {key["name"] for key in bob.get("/v1/keys").json()["data"]} == {"theirs", "bob"}
        assert bob.get("/v1/audit").json()["data"] == []
        assert bob.get("/v1/usage").json()["total"]["queued_jobs"] == 0
    with service.database.reading() as session:
        key = session.get(ApiKey, theirs)
        assert (key.name, key.revoked_at) == ("theirs", None)


@on_both_databases
def test_a_quota_that_waiting_frees_is_429_and_one_that_it_does_not_is_403(service, boss, spec):
    made = make(boss, quotas={"max_queued_jobs": 1})
    with with_key(service, made["key"]) as client:
        job = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()
        full = client.post("/v1/jobs", json=spec)
        problem = full.json()
        assert (full.status_code, problem["code"]) == (429, "quota_exceeded")
        assert (problem["quota"], problem["limit"], problem["used"]) == ("max_queued_jobs", 1, 1)
        assert int(full.headers["Retry-After"]) > 0
        assert client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()["id"] == job["id"]
        assert len(client.get("/v1/jobs").json()["data"]) == 1
        service.finish(service.claim())
        boss.patch(f"/v1/keys/{made['id']}", json={"quotas": {"max_stored_bytes": 1}})
        full = client.post("/v1/jobs", json=spec)
        assert (full.status_code, full.json()["code"], full.json()["quota"]) == (
            403,
            "quota_exceeded",
            "max_stored_bytes",
        )
        assert full.json()["used"] == 10
        assert "Retry-After" not in full.headers
        assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 403


def test_a_job_that_its_key_holds_back_says_so(service, boss, spec):
    made = make(boss, quotas={"max_running_jobs": 0})
    with with_key(service, made["key"]) as client:
        job = client.post("/v1/jobs", json=spec).json()
    assert job["queue_reason"] == "Its key may have 0 job(s) running at once, and has."


@on_both_databases
def test_usage_is_told_by_key_and_in_all(service, boss):
    made = make(boss, quotas={"max_queued_jobs": 9})
    with with_key(service, made["key"]) as client:
        service.submit(client)
        service.finish(service.claim())
        service.submit(client)
        service.submit()
        service.claim()
        service.submit(client)
    report = boss.get("/v1/usage").json()
    by_name = {key["name"]: key for key in report["keys"]}
    mine = by_name["ci"]
    assert (mine["queued_jobs"], mine["running_jobs"], mine["stored_bytes"]) == (1, 1, 10)
    assert mine["jobs"] == dict.fromkeys(mine["jobs"], 0) | {"queued": 1, "running": 1, "succeeded": 1}
    assert (mine["key_id"], mine["quotas"]["max_queued_jobs"]) == (made["id"], 9)
    assert 0 <= mine["gpu_seconds"] < 60
    assert (report["total"]["queued_jobs"], report["total"]["running_jobs"], report["total"]["stored_bytes"]) == (
        2,
        1,
        10,
    )
    (alone,) = boss.get("/v1/usage", params={"key_id": made["id"]}).json()["keys"]
    assert alone["jobs"] == mine["jobs"]
    past = {"from": "2001-01-01T00:00:00Z", "to": "2001-02-01T00:00:00Z"}
    then = boss.get("/v1/usage", params=past).json()
    assert (then["from"], then["to"], then["total"]["gpu_seconds"]) == (*past.values(), 0)
    turned = boss.get("/v1/usage", params={"from": past["to"], "to": past["from"]})
    assert (turned.status_code, turned.json()["code"]) == (422, "period_invalid")


@on_both_databases
def test_what_is_done_is_in_the_log_and_what_is_refused_is_not(service, boss, spec):
    made = make(boss)
    with with_key(service, made["key"]) as client:
        job = client.post("/v1/jobs", json=spec, headers={"X-Request-Id": "r-1", "Idempotency-Key": "k"}).json()
        client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
        client.post("/v1/jobs", json={})
        for act in ("retry", "pause", "pause", "resume", "cancel", "cancel", "resume", "retry"):
            client.post(f"/v1/jobs/{job['id']}/{act}")
    boss.patch(f"/v1/keys/{made['id']}", json={"quotas": {"max_queued_jobs": 1}})
    boss.post(f"/v1/keys/{made['id']}/revoke")
    boss.post(f"/v1/keys/{made['id']}/revoke")
    entries = boss.get("/v1/audit").json()["data"]
    assert [entry["action"] for entry in reversed(entries)] == [
        "key.make", "job.submit", "job.pause", "job.resume", "job.cancel", "job.retry", "key.change", "key.revoke",
    ]  # fmt: skip
    submitted = entries[6]
    assert (submitted["target"], submitted["key_id"], submitted["request_id"]) == (job["id"], made["id"], "r-1")
    assert submitted["client"] == "127.0.0.1"
    assert entries[1]["details"] == {"quotas": {"max_queued_jobs": 1}}
    assert entries[7]["details"] == {"name": "ci", "scopes": ["read", "submit"]}


def test_what_is_asked_again_without_effect_is_not_in_the_log(service, boss, spec):
    sweep = service.client.post("/v1/sweeps", json={"spec": spec, "grid": {"seed": [0]}}).json()
    service.claim()
    job = service.submit()
    service.claim()
    for cancel in (sweep["links"]["cancel"], job["links"]["cancel"]):
        for grace_s in (20, 20, 30, 10):
            assert service.client.post(cancel, params={"grace_s": grace_s}).status_code == 202
    actions = [entry["action"] for entry in reversed(boss.get("/v1/audit").json()["data"])]
    # Each was hastened once.
    assert actions == ["sweep.submit", "job.submit", *["sweep.cancel"] * 2, *["job.cancel"] * 2]


def test_uploads_are_in_the_log(service, boss):
    file = {"path": "text.txt", "bytes": 5, "sha256": hashlib.sha256(b"Hello").hexdigest()}
    order = {"kind": "text", "name": "greeting", "files": [file]}
    for _ in range(2):
        upload = service.client.post("/v1/uploads", json=order, headers={"Idempotency-Key": "k"}).json()
    service.client.put(upload["files"][0]["links"]["content"], content=b"Hello")
    for _ in range(2):
        service.client.delete(upload["links"]["self"])
    deleted, made = boss.get("/v1/audit").json()["data"]
    assert [(entry["action"], entry["target"]) for entry in (made, deleted)] == [
        ("upload.make", upload["id"]),
        ("upload.delete", upload["id"]),
    ]
    assert made["details"] == {"kind": "text", "name": "greeting", "bytes": 5}
    assert made["client"] == "127.0.0.1"


def test_the_log_is_read_by_page_action_and_key(service, boss):
    made = make(boss)
    with with_key(service, made["key"]) as client:
        service.submit(client)
    service.submit()
    first = boss.get("/v1/audit", params={"limit": 2}).json()
    second = boss.get("/v1/audit", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [entry["action"] for entry in first["data"] + second["data"]] == ["job.submit", "job.submit", "key.make"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    (submitted,) = boss.get("/v1/audit", params={"key_id": made["id"]}).json()["data"]
    assert submitted["action"] == "job.submit"
    (of_boss,) = boss.get("/v1/audit", params={"action": "key.make"}).json()["data"]
    assert of_boss["target"] == made["id"]
    assert boss.get("/v1/audit", params={"cursor": "a2V5"}).json()["code"] == "cursor_invalid"


def test_the_operator_s_command_knows_the_same_limits_and_is_in_the_log(service, settings, boss):
    def run(*arguments):
        return CliRunner().invoke(cli, arguments, env={"SENTINEL_DATABASE_URL": settings.database_url})

    limits = ["--max-queued-jobs=1", "--max-running-jobs=2", "--max-gpu-seconds=3", "--max-stored-bytes=4"]
    made = run("create", "--name", "op", "--tenant", "ann", "--scope", "read", *limits, "--rate-limit", "9/second")
    key_id = made.stdout.split("_")[1]
    key = boss.get(f"/v1/keys/{key_id}").json()
    assert (list(key["quotas"].values()), key["rate_limit"]) == ([1, 2, 3, 4], "9/second")
    assert run("revoke", key_id).exit_code == 0
    assert boss.get(f"/v1/keys/{key_id}").json()["revoked_at"] is not None
    entries = boss.get("/v1/audit").json()["data"]
    assert [(entry["action"], entry["target"], entry["key_id"]) for entry in entries] == [
        ("key.revoke", key_id, None),
        ("key.make", key_id, None),
    ]
    wrong = run("create", "--name", "op", "--rate-limit", "fast")
    assert wrong.exit_code == 2
    assert "600/minute" in wrong.stderr
    for too_much in ("--expires-days=3000000", f"--max-running-jobs={2**31}", f"--max-stored-bytes={2**63}"):
        assert run("create", "--name", "op", too_much).exit_code == 2
