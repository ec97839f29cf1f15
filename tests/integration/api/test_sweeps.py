"""Sweeps over HTTP: accepted as one or not at all, followed as one, and compared by what their jobs measured."""

import csv
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from api.store import leases
from sentinel.result import GroupCounts, PrunedMeasurement

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
SWEEP = {
    "name": "both",
    "spec": {"model": "builtin/gpt2", "heal": None},
    "grid": {"prune.strategy": ["obs", "taylor"], "prune.target.sparsity": [0.25, 0.5]},
    "max_parallel": 3,
    "budget": {"slot_seconds": 3600},
}
SEEDS = {
    "spec": {"model": "builtin/gpt2"},
    "grid": {"prune.target.sparsity": [0.25, 0.5], "seed": [0, 1]},
}


def submit(service, document=SWEEP, **options):
    answer = service.client.post("/v1/sweeps", json=document, **options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def shown(service, sweep):
    return service.client.get(sweep["links"]["self"]).json()


def jobs_of(service, sweep):
    """Its jobs, in the order in which they run."""
    return service.client.get(sweep["links"]["jobs"]).json()["data"][::-1]


def finish(service, *, loss, parameters, latency_ms=1.0):
    """Let the next job succeed."""
    pruned = PrunedMeasurement(
        loss=loss,
        perplexity=2.0,
        kl_to_dense=loss / 10,
        agreement=0.9,
        parameters=parameters,
        kv_bytes_per_token=64,
        latency_ms=latency_ms,
        groups=GroupCounts(attention=8, mlp=100),
        samples=["Once"],
    )
    claim = service.claim()
    with service.database.transaction() as session:
        leases.succeed(session, claim, {"dense": {}, "pruned": pruned.model_dump(mode="json")}, [])
    return claim.job_id


def rows(service, sweep, **query):
    answer = service.client.get(sweep["links"]["table"], params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@on_both_databases
def test_a_sweep_is_stored_with_a_job_for_every_point(service):
    answer = service.client.post("/v1/sweeps", json=SWEEP, params={"priority": 3}, headers={"X-Request-Id": "mine"})
    sweep = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/sweeps/{sweep['id']}")
    assert (sweep["name"], sweep["points"], sweep["max_parallel"], sweep["ended"]) == ("both", 4, 3, False)
    assert (sweep["budget"], sweep["used_slot_s"], sweep["progress"]) == ({"slot_seconds": 3600}, 0, 0)
    assert (sweep["counts"]["queued"], sum(sweep["counts"].values())) == (4, 4)
    assert sweep["document"]["grid"] == SWEEP["grid"]
    jobs = jobs_of(service, sweep)
    assert [tuple(job["point"].values()) for job in jobs] == [
        ("obs", 0.25),
        ("obs", 0.5),
        ("taylor", 0.25),
        ("taylor", 0.5),
    ]
    assert {(job["sweep_id"], job["name"], job["priority"], job["request_id"]) for job in jobs} == {
        (sweep["id"], "both", 3, "mine")
    }
    assert all(job["needs_bytes"] > 0 for job in jobs)
    spec = service.client.get(jobs[3]["links"]["self"]).json()["spec"]
    assert (spec["prune"]["strategy"], spec["prune"]["target"]["sparsity"], spec["heal"]) == ("taylor", 0.5, None)


def test_a_job_of_its_own_belongs_to_no_sweep(service):
    job = service.submit()
    assert (job["sweep_id"], job["point"]) == (None, None)
    sweep = submit(service)
    assert len(jobs_of(service, sweep)) == 4
    assert len(service.client.get("/v1/jobs").json()["data"]) == 5


MISTAKEN = {
    "spec": {"model": {"source": "path", "path": "/etc"}, "colour": "red"},
    "grid": {"prune.target.sparsity": [0.5, 1.5], "device": ["cpu", "cuda:1"], "model.dtype": ["float32", "int4"]},
    "max_parallel": 0,
}
MISTAKES = {
    "/spec/model/path",
    "/spec/colour",
    "/grid/prune.target.sparsity/1",
    "/grid/device/1",
    "/grid/model.dtype/1",
    "/max_parallel",
}


def test_the_mistakes_of_all_points_are_one_problem_and_nothing_is_stored(service):
    answer = service.client.post("/v1/sweeps", json=MISTAKEN)
    assert (answer.status_code, answer.json()["code"]) == (422, "sweep_invalid")
    assert {error["pointer"] for error in answer.json()["errors"]} == MISTAKES
    assert service.client.get("/v1/sweeps").json()["data"] == []
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_validate_finds_the_same_and_lists_the_points(service):
    bad = service.client.post("/v1/sweeps/validate", json=MISTAKEN).json()
    assert (bad["valid"], {error["pointer"] for error in bad["errors"]}, bad["points"]) == (False, MISTAKES, [])
    good = service.client.post("/v1/sweeps/validate", json=SWEEP).json()
    assert (good["valid"], good["errors"], len(good["points"])) == (True, [], 4)
    assert good["points"][1] == {"prune.strategy": "obs", "prune.target.sparsity": 0.5}
    assert good["largest"]["memory_bytes"] > good["largest"]["parameters"] * 4
    assert good["document"]["budget"] == SWEEP["budget"]
    assert service.client.get("/v1/sweeps").json()["data"] == []


def test_a_grid_beyond_the_limit_is_refused(service):
    document = SWEEP | {"grid": {"seed": list(range(51)), "prune.cycles": list(range(1, 11))}}
    problem = service.client.post("/v1/sweeps", json=document).json()
    (error,) = problem["errors"]
    assert (error["pointer"], problem["status"]) == ("/grid", 422)
    assert "has 510 points; a sweep can have 500" in error["message"]


def test_yaml_is_as_good_as_json(service):
    body = yaml.safe_dump(SWEEP)
    answer = service.client.post("/v1/sweeps", content=body, headers={"Content-Type": "application/yaml"})
    assert (answer.status_code, answer.json()["points"]) == (201, 4)
    assert service.client.post("/v1/sweeps", content=body).json()["code"] == "media_type_unsupported"


@on_both_databases
def test_the_same_key_and_request_give_the_same_sweep(service):
    def post(document=SWEEP, **query):
        return service.client.post("/v1/sweeps", json=document, params=query, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False, True, True, True]
    assert len(service.client.get("/v1/jobs").json()["data"]) == 4
    assert post(priority=1).json()["code"] == "idempotency_mismatch"
    assert post(SWEEP | {"name": "other"}).json()["code"] == "idempotency_mismatch"
    job = service.client.post("/v1/jobs", json=SWEEP["spec"] | {"prune": {"target": {"sparsity": 0.25}}})
    same_key = service.client.post("/v1/jobs", json=job.json()["spec"], headers={"Idempotency-Key": "k"})
    assert same_key.json()["code"] == "idempotency_mismatch"


def test_pages_neither_shift_nor_repeat_while_sweeps_arrive(service):
    ids = [submit(service)["id"] for _ in range(3)]
    first = service.client.get("/v1/sweeps", params={"limit": 2}).json()
    submit(service)
    second = service.client.get("/v1/sweeps", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [sweep["id"] for page in (first, second) for sweep in page["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert first["data"][0]["counts"]["queued"] == 4
    of_jobs = service.client.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
    assert service.client.get("/v1/sweeps", params={"cursor": of_jobs}).json()["code"] == "cursor_invalid"


def test_somebody_else_s_sweep_is_not_there(service):
    sweep = submit(service)
    with service.client_of("bob") as bob:
        assert bob.get("/v1/sweeps").json()["data"] == []
        assert bob.get("/v1/jobs", params={"sweep": sweep["id"]}).json()["data"] == []
        for method, path in (("GET", ""), ("GET", "/table"), ("GET", "/best"), ("POST", "/cancel")):
            answer = bob.request(method, sweep["links"]["self"] + path)
            assert (answer.status_code, answer.json()["code"]) == (404, "sweep_not_found"), path


def test_a_job_says_that_its_sweep_lets_it_wait(service):
    sweep = submit(service, SWEEP | {"max_parallel": 1})
    service.claim()
    waiting = jobs_of(service, sweep)[1]
    assert waiting["queue_reason"] == "Its sweep runs no more than 1 job(s) at the same time."
    assert service.client.get(waiting["links"]["self"]).json()["queue_reason"] == waiting["queue_reason"]


def test_who_waits_hears_of_every_job_s_change(service):
    sweep = submit(service)
    first = service.client.get(sweep["links"]["self"])
    headers = {"If-None-Match": first.headers["ETag"]}
    same = service.client.get(sweep["links"]["self"], headers=headers)
    assert (same.status_code, same.headers["ETag"]) == (304, first.headers["ETag"])
    answers = []

    def poll():
        answers.append(service.client.get(sweep["links"]["self"], params={"wait": 20}, headers=headers, timeout=30))

    poller = threading.Thread(target=poll)
    poller.start()
    poller.join(0.5)
    assert poller.is_alive()
    service.claim()
    poller.join(10)
    assert (answers[0].status_code, answers[0].json()["counts"]["running"]) == (200, 1)
    assert answers[0].headers["ETag"].startswith('W/"')


def test_a_cancel_stops_what_has_not_ended(service):
    sweep = submit(service)
    finish(service, loss=1.0, parameters=5)
    running = service.claim()
    answer = service.client.post(sweep["links"]["cancel"], params={"grace_s": 7})
    assert (answer.status_code, answer.json()["ended"]) == (202, False)
    counts = {state: number for state, number in answer.json()["counts"].items() if number}
    assert counts == {"succeeded": 1, "cancelling": 1, "cancelled": 2}
    with service.database.transaction() as session:
        assert leases.heartbeat(session, running, 60).grace_s == 7
        leases.finish_cancel(session, running)
    again = service.client.post(sweep["links"]["cancel"])
    assert (again.status_code, again.json()["ended"], again.json()["progress"]) == (200, True, 1)


@on_both_databases
def test_a_table_has_a_row_for_every_point(service):
    sweep = submit(service)
    done = finish(service, loss=1.5, parameters=700)
    service.claim()
    first, second, *_ = table = rows(service, sweep)
    assert len(table) == 4
    assert first == {
        "point": {"prune.strategy": "obs", "prune.target.sparsity": 0.25},
        "jobs": [{"id": done, "state": "succeeded"}],
        "result": {
            "loss": 1.5,
            "perplexity": 2.0,
            "kl_to_dense": 0.15,
            "agreement": 0.9,
            "parameters": 700,
            "kv_bytes_per_token": 64,
            "latency_ms": 1.0,
            "attention_groups": 8,
            "mlp_groups": 100,
        },
        "spread": None,
    }
    assert ([job["state"] for job in second["jobs"]], second["result"]) == (["running"], None)


def test_a_retry_stands_in_its_parent_s_row(service):
    sweep = submit(service)
    claim = service.claim()
    with service.database.transaction() as session:
        leases.fail(session, claim, {"code": "c", "fault": "user", "message": "m", "next_step": "n"}, retry=False)
    retry = service.client.post(f"/v1/jobs/{claim.job_id}/retry").json()
    assert (retry["sweep_id"], retry["point"]) == (sweep["id"], jobs_of(service, sweep)[0]["point"])
    assert rows(service, sweep)[0]["jobs"] == [{"id": retry["id"], "state": "queued"}]
    assert (shown(service, sweep)["points"], shown(service, sweep)["counts"]["failed"]) == (4, 0)


def test_as_csv_a_table_has_a_column_for_every_field_of_the_grid(service):
    document = SWEEP | {"grid": SWEEP["grid"] | {"heal": [None, {"steps": 3}]}}
    sweep = submit(service, document)
    done = finish(service, loss=1.5, parameters=700)
    answer = service.client.get(sweep["links"]["table"], params={"format": "csv"})
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert len(lines) == 8
    picked = {key: lines[0][key] for key in ("prune.strategy", "prune.target.sparsity", "heal", "jobs", "states")}
    assert picked == {
        "prune.strategy": "obs",
        "prune.target.sparsity": "0.25",
        "heal": "null",
        "jobs": done,
        "states": "succeeded",
    }
    assert (lines[0]["loss"], lines[0]["parameters"], lines[1]["loss"]) == ("1.5", "700", "")
    assert lines[1]["heal"] == '{"steps": 3}'
    assert "loss_spread" not in lines[0]


def test_seeds_are_averaged_on_request(service):
    sweep = submit(service, SEEDS)
    for loss in (1.0, 2.0, 5.0):
        finish(service, loss=loss, parameters=700)
    first, second = rows(service, sweep, average_seeds=True)
    assert (first["point"], len(first["jobs"])) == ({"prune.target.sparsity": 0.25}, 2)
    assert (first["result"]["loss"], first["result"]["parameters"]) == (1.5, 700)
    assert first["spread"]["loss"] == pytest.approx(0.5**0.5)
    assert (second["result"]["loss"], second["spread"]) == (5.0, None)
    assert [job["state"] for job in second["jobs"]] == ["succeeded", "queued"]
    text = service.client.get(sweep["links"]["table"], params={"format": "csv", "average_seeds": True}).text
    lines = list(csv.DictReader(io.StringIO(text)))
    assert ("seed" in lines[0], lines[0]["loss_spread"][:6], lines[1]["loss_spread"]) == (False, "0.7071", "")


def test_the_pareto_front_has_what_nothing_else_beats(service):
    sweep = submit(service)
    measured = [(1.5, 900, 3.0), (2.0, 500, 4.0), (2.5, 700, 1.0), (1.5, 950, 2.0)]
    for loss, parameters, latency_ms in measured:
        finish(service, loss=loss, parameters=parameters, latency_ms=latency_ms)

    def front(cost):
        return [(row["result"]["loss"], row["result"][cost]) for row in rows(service, sweep, pareto=cost)]

    assert front("parameters") == [(2.0, 500), (1.5, 900)]
    assert front("latency_ms") == [(2.5, 1.0), (1.5, 2.0)]
    assert front("kv_bytes_per_token") == [(1.5, 64)]
    refused = service.client.get(sweep["links"]["table"], params={"pareto": "beauty"})
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/query/pareto"]


def test_the_best_within_limits(service):
    sweep = submit(service)

    def best(**query):
        answer = service.client.get(sweep["links"]["best"], params=query)
        return answer.status_code, answer.json()

    status, problem = best()
    assert (status, problem["code"]) == (409, "nothing_measured")
    finish(service, loss=1.5, parameters=900, latency_ms=3.0)
    nearest = finish(service, loss=2.0, parameters=500, latency_ms=4.0)
    finish(service, loss=2.5, parameters=700, latency_ms=1.0)
    assert best()[1]["result"]["loss"] == 1.5
    assert best(max_parameters=800)[1]["result"]["loss"] == 2.0
    assert best(max_parameters=500)[1]["result"]["loss"] == 2.0
    assert best(max_parameters=800, max_latency_ms=3.5)[1]["result"]["loss"] == 2.5
    assert best(max_latency_ms=3.5, minimise="parameters")[1]["result"]["parameters"] == 700
    status, problem = best(max_parameters=450, max_latency_ms=3.9)
    assert (status, problem["code"]) == (409, "nothing_fits")
    assert nearest in problem["detail"]
    assert "parameters 500 (at most 450), latency_ms 4 (at most 3.9)" in problem["detail"]
    assert best(max_parameters=0)[0] == 422


def test_the_description_tells_of_sweeps_and_shows_one(service):
    document = httpx.get(f"{service.base_url}/openapi.json").json()
    body = document["paths"]["/v1/sweeps"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/yaml"}
    schema = document["components"]["schemas"][body["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    assert set(schema["required"]) == {"spec", "grid"}
    example = body["application/yaml"]["example"]
    assert service.client.post("/v1/sweeps/validate", json=example).json()["valid"]
