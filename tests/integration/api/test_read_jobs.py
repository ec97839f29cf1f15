"""Reading jobs: pages, entity tags, long poll, attempts, metrics, cancel; and never somebody else's."""

import csv
import io
import threading
import time
from datetime import datetime

import pytest

from api.store import leases
from sentinel.events import MetricRecorded, Phase, PhaseStarted, Progressed

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@on_both_databases
def test_pages_neither_shift_nor_repeat_while_jobs_arrive(service):
    ids = [service.submit()["id"] for _ in range(5)]
    first = service.client.get("/v1/jobs", params={"limit": 2}).json()
    service.submit()
    second = service.client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    third = service.client.get("/v1/jobs", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert [job["id"] for page in (first, second, third) for job in page["data"]] == ids[::-1]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert third["next_cursor"] is None


def test_lists_can_be_narrowed(service):
    service.submit(name="queued")
    other = service.submit(name="other")
    service.client.post(f"/v1/jobs/{other['id']}/cancel")

    def names(**query):
        return [job["name"] for job in service.client.get("/v1/jobs", params=query).json()["data"]]

    assert names(state="queued") == ["queued"]
    assert names(name="other") == ["other"]
    assert names(state="queued", name="queued") == ["queued"]
    assert names(state="cancelled", name="queued") == []
    assert names(created_before=other["created_at"]) == ["queued"]
    assert names(created_after=other["created_at"]) == []


@pytest.mark.parametrize("cursor", ["%", "abc", "am9iXwA", "Zm9v"])
def test_a_made_up_cursor_is_refused(service, cursor):
    answer = service.client.get("/v1/jobs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


def test_every_bad_query_value_is_named(service):
    answer = service.client.get("/v1/jobs", params={"limit": 201, "state": "asleep", "name": "a\0b"})
    assert answer.status_code == 422
    assert {e["pointer"] for e in answer.json()["errors"]} == {"/query/limit", "/query/state", "/query/name"}


@on_both_databases
def test_a_running_job_shows_what_it_does(service):
    job = service.submit()
    claim = service.claim()
    service.record(claim, PhaseStarted(phase=Phase.HEALING, cycle=2), Progressed(fraction=0.5))
    seen = service.client.get(f"/v1/jobs/{job['id']}").json()
    assert (seen["state"], seen["phase"], seen["cycle"], seen["progress"]) == ("running", "healing", 2, 0.5)
    assert datetime.fromisoformat(seen["started_at"]) >= datetime.fromisoformat(seen["created_at"])
    attempts = service.client.get(f"/v1/jobs/{job['id']}/attempts").json()["data"]
    assert [(a["number"], a["token"], a["worker"], a["outcome"]) for a in attempts] == [(1, 1, "w", None)]


def test_a_finished_job_carries_result_checkpoint_and_files(service):
    job = service.submit()
    service.finish(service.claim())
    done = service.client.get(f"/v1/jobs/{job['id']}").json()
    assert (done["state"], done["result"]) == ("succeeded", {"dense": {"loss": 1.5}})
    assert done["checkpoint_uri"] == f"/v1/jobs/{job['id']}/checkpoint"
    assert [a["path"] for a in done["artifacts"]] == ["checkpoint/config.json", "checkpoint/model.safetensors"]
    assert done["artifacts"] == service.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]


def tag_of(service, job):
    return service.client.get(f"/v1/jobs/{job['id']}").headers["ETag"]


def test_an_unchanged_job_is_304(service):
    job = service.submit()
    tag = tag_of(service, job)
    same = service.client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": tag})
    assert (same.status_code, same.headers["ETag"], same.content) == (304, tag, b"")
    service.claim()
    changed = service.client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "running")


def test_a_long_poll_answers_as_soon_as_the_job_changes(service):
    job = service.submit()
    tag, answers = tag_of(service, job), []

    def poll():
        answer = service.client.get(
            f"/v1/jobs/{job['id']}", params={"wait": 15}, headers={"If-None-Match": tag}, timeout=20
        )
        answers.append((answer.status_code, answer.json()["state"]))

    poller = threading.Thread(target=poll)
    started = time.monotonic()
    poller.start()
    poller.join(0.5)
    assert poller.is_alive()
    service.claim()
    poller.join()
    assert answers == [(200, "running")]
    assert time.monotonic() - started < 10


def test_a_long_poll_without_news_is_304_after_the_wait(service):
    job = service.submit()
    answer = service.client.get(
        f"/v1/jobs/{job['id']}", params={"wait": 0.4}, headers={"If-None-Match": tag_of(service, job)}
    )
    assert answer.status_code == 304
    assert answer.elapsed.total_seconds() >= 0.4


def test_a_server_that_stops_answers_long_polls(service):
    job = service.submit()
    threading.Timer(0.3, service.app.state.resources.stopping.set).start()
    answer = service.client.get(
        f"/v1/jobs/{job['id']}", params={"wait": 15}, headers={"If-None-Match": tag_of(service, job)}
    )
    assert answer.status_code == 304
    assert answer.elapsed.total_seconds() < 10


def test_metrics_as_json_and_as_csv(service):
    job = service.submit()
    points = [MetricRecorded(name="loss", value=2.5 - step, step=step, cycle=1) for step in (0, 1)]
    service.record(service.claim(), *points, MetricRecorded(name="kl", value=0.1, step=1))
    series = service.client.get(f"/v1/jobs/{job['id']}/metrics").json()
    assert {name: [(p["step"], p["value"]) for p in points] for name, points in series.items()} == {
        "kl": [(1, 0.1)],
        "loss": [(0, 2.5), (1, 1.5)],
    }
    answer = service.client.get(f"/v1/jobs/{job['id']}/metrics", params={"format": "csv", "name": "loss"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert [(row["name"], row["step"], row["value"], row["cycle"]) for row in rows] == [
        ("loss", "0", "2.5", "1"),
        ("loss", "1", "1.5", "1"),
    ]


@on_both_databases
def test_cancel_by_state(service):
    queued = service.submit()
    assert service.client.post(f"/v1/jobs/{queued['id']}/cancel").json()["state"] == "cancelled"
    again = service.client.post(f"/v1/jobs/{queued['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")

    running = service.submit()
    claim = service.claim()
    for _ in range(2):
        asked = service.client.post(f"/v1/jobs/{running['id']}/cancel")
        assert (asked.status_code, asked.json()["state"]) == (202, "cancelling")
    service.finish(claim)
    refused = service.client.post(f"/v1/jobs/{running['id']}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_transition")
    assert (refused.json()["from"], refused.json()["allowed"]) == ("succeeded", [])


@on_both_databases
def test_pause_and_resume_by_state(service):
    def ask(job, step):
        answer = service.client.post(f"/v1/jobs/{job['id']}/{step}")
        return answer.status_code, answer.json().get("state")

    queued = service.submit()
    assert [ask(queued, "pause") for _ in range(2)] == [(202, "paused"), (200, "paused")]
    assert [ask(queued, "resume") for _ in range(2)] == [(202, "queued"), (200, "queued")]

    claim = service.claim()
    assert [ask(queued, "pause") for _ in range(2)] == [(202, "pausing"), (202, "pausing")]
    assert [ask(queued, "resume") for _ in range(2)] == [(202, "running"), (200, "running")]
    service.finish(claim)
    for step in ("pause", "resume"):
        refused = service.client.post(f"/v1/jobs/{queued['id']}/{step}")
        assert (refused.status_code, refused.json()["from"], refused.json()["allowed"]) == (409, "succeeded", [])


@on_both_databases
def test_an_ended_job_is_tried_again_as_a_new_one(service):
    def retry(job, **query):
        return service.client.post(f"/v1/jobs/{job['id']}/retry", params=query)

    parent = service.submit()
    early = retry(parent)
    assert (early.status_code, early.json()["code"]) == (409, "job_not_ended")
    claim = service.claim()
    kept = [{"path": "state.json", "sha256": "0" * 64, "bytes": 1, "storage_key": "k"}]
    with service.database.transaction() as session:
        for cycle in (1, 2):
            leases.record_checkpoint(session, claim, cycle, kept if cycle == 2 else [])
        leases.fail(session, claim, {"code": "x", "fault": "user", "message": "m", "next_step": "n"}, retry=False)

    answer = retry(parent)
    child = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/jobs/{child['id']}")
    assert (child["parent_id"], child["spec"], child["state"]) == (parent["id"], parent["spec"], "queued")
    assert service.claim().resume == tuple(kept)
    fresh = retry(parent, **{"from": "start"}).json()
    claim = service.claim()
    assert (claim.job_id, claim.resume) == (fresh["id"], None)


def test_a_retry_that_is_sent_twice_makes_one_job(service):
    parent = service.submit()
    service.client.post(f"/v1/jobs/{parent['id']}/cancel")
    path, headers = f"/v1/jobs/{parent['id']}/retry", {"Idempotency-Key": "k"}
    first, second = (service.client.post(path, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    other = service.client.post(path, params={"from": "start"}, headers=headers)
    assert other.json()["code"] == "idempotency_mismatch"


def test_somebody_elses_job_does_not_exist(service):
    job = service.submit()
    service.finish(service.claim())
    artifact = service.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"][0]
    with service.client_of("bob") as bob:
        parts = ("", "/events", "/metrics", "/attempts", "/artifacts", "/checkpoint")
        answers = [bob.get(f"/v1/jobs/{job['id']}{part}") for part in parts]
        answers += [bob.post(f"/v1/jobs/{job['id']}/{step}") for step in ("pause", "resume", "cancel", "retry")]
        answers.append(bob.get(artifact["links"]["content"]))
        stream = bob.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"})
        assert {answer.status_code for answer in [*answers, stream]} == {404}
        assert bob.get("/v1/jobs").json()["data"] == []
