"""What a user is told of needs, workers, and why a job waits."""

import pytest

from api.store.models import SlotReport
from api.store.placement import advertise


def say_there_is(service, *devices, memory_bytes, busy=False):
    slot = SlotReport(
        device="H100", devices=list(devices), total_bytes=memory_bytes, free_bytes=memory_bytes, busy=busy
    )
    with service.database.transaction() as session:
        advertise(session, "host:1", [slot])


def test_a_verdict_tells_what_a_spec_takes_and_what_is_in_its_way(service, spec):
    verdict = service.client.post("/v1/jobs/validate", json=spec).json()
    assert verdict["estimate"]["parameters"] > 500_000
    assert verdict["estimate"]["memory_bytes"] > verdict["estimate"]["parameters"] * 4
    assert verdict["queue_reason"] == "No worker is alive."
    say_there_is(service, "auto", memory_bytes=1000)
    assert "largest device" in service.client.post("/v1/jobs/validate", json=spec).json()["queue_reason"]
    say_there_is(service, "auto", memory_bytes=10**12)
    assert service.client.post("/v1/jobs/validate", json=spec).json()["queue_reason"] is None


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    "heal",
    [
        {"method": "lora", "lora": {"rank": 2**62}},
        {"teacher_top_k": 512, "steps": 10**18},
        {"batch_tokens": 2**62, "micro_batch_tokens": 2**62},
    ],
    ids=["rank", "likely tokens", "batch"],
)
def test_a_job_that_needs_more_than_can_be_counted_waits_like_any_that_is_too_large(service, heal):
    say_there_is(service, "auto", memory_bytes=10**12)
    job = service.submit(heal=heal)
    assert job["needs_bytes"] == 2**63 - 1
    assert "largest device" in job["queue_reason"]


@pytest.mark.parametrize("model", [{"source": "hub", "id": "some/model"}, {"source": "path", "path": "here"}])
def test_of_a_model_that_is_not_here_nothing_is_claimed(service, spec, model, settings):
    if "path" in model:
        folder = settings.home / "empty"
        folder.mkdir()
        service.app.state.resources.settings.model_roots.append(settings.home)
        model["path"] = str(folder)
    verdict = service.client.post("/v1/jobs/validate", json=spec | {"model": model}).json()
    assert (verdict["valid"], verdict["estimate"]) == (True, None)
    assert service.client.post("/v1/jobs", json=spec | {"model": model}).json()["needs_bytes"] is None


@pytest.mark.parametrize("more_settings", [{"max_layers": 1}])
def test_a_model_beyond_the_operator_s_limits_is_refused_where_it_lies(service, spec):
    refused = service.client.post("/v1/jobs", json=spec)
    assert (refused.status_code, refused.json()["code"]) == (422, "model_too_large")
    assert "SENTINEL_MAX_" in refused.json()["next_step"]
    verdict = service.client.post("/v1/jobs/validate", json=spec).json()
    for answer in (refused.json(), verdict):
        assert [(error["pointer"], error["code"]) for error in answer["errors"]] == [("/model", "model_too_large")]
    assert not verdict["valid"]
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_waiting_job_says_why_in_every_view_and_its_tag_follows(service):
    job = service.submit()
    assert job["queue_reason"] == "No worker is alive."
    assert job["needs_bytes"] > 0
    say_there_is(service, "auto", memory_bytes=10**12, busy=True)
    shown = service.client.get(job["links"]["self"])
    (listed,) = service.client.get("/v1/jobs").json()["data"]
    assert shown.json()["queue_reason"] == listed["queue_reason"] == "Every slot that could run it is busy."
    tag = shown.headers["ETag"]
    assert service.client.get(job["links"]["self"], headers={"If-None-Match": tag}).status_code == 304
    say_there_is(service, "auto", memory_bytes=10**12)
    news = service.client.get(job["links"]["self"], headers={"If-None-Match": tag})
    assert (news.status_code, news.json()["queue_reason"]) == (200, None)


def test_a_service_chooses_the_gpu_itself(service, spec):
    answer = service.client.post("/v1/jobs", json=spec | {"device": "cuda:1", "colour": "red"})
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/device", "/colour"}
    alone = service.client.post("/v1/jobs", json=spec | {"device": "cuda:1"}).json()
    assert [error["code"] for error in alone["errors"]] == ["device_index"]


def test_living_workers_are_listed(service):
    assert service.client.get("/v1/workers").json() == {"data": []}
    say_there_is(service, "auto", "cuda", memory_bytes=80)
    (worker,) = service.client.get("/v1/workers").json()["data"]
    assert worker["id"] == "host:1"
    assert worker["slots"] == [
        {"device": "H100", "devices": ["auto", "cuda"], "total_bytes": 80, "free_bytes": 80, "busy": False}
    ]
