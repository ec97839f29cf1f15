"""The whole service over HTTP, as a user meets it."""

import hashlib
import json
import os
import subprocess
import sys

import httpx
import psutil
import pytest

from sentinel.client import SentinelClient
from sentinel.data.stories import split_stories
from sentinel.paths import BUILTIN_MODELS
from sentinel.transport import ServiceRefused
from tests.conftest import QUICK_PRUNE

MEGABYTE = 1024 * 1024
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# Runs in a fresh process that knows nothing of Sentinel.
RELOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("Once upon a time", return_tensors="pt")
assert "sentinel" not in sys.modules
print(sum(p.numel() for p in model.parameters()), model.generate(**tokens, max_new_tokens=5).shape[1])
"""


@pytest.fixture(scope="module")
def finished(service, tiny_spec):
    """A job that has succeeded, and every event it told; its request belonged to a trace."""
    headers = {"Authorization": f"Bearer {service.api_key}", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    with httpx.Client(base_url=service.base_url, headers=headers, timeout=60) as client:
        submitted = client.post("/v1/jobs", json=tiny_spec(cycles=2, name="tiny"))
    assert submitted.status_code == 201
    with SentinelClient(service.base_url, service.api_key) as client:
        job_id = submitted.json()["id"]
        events = list(client.watch(job_id))
        return client.get(job_id), events


def test_a_spec_becomes_a_smaller_model_with_its_measurements(finished):
    job, _ = finished
    assert (job.state, job.error, job.attempt) == ("succeeded", None, 1)
    assert job.result.pruned.groups.attention < job.result.dense.groups.attention
    assert job.result.pruned.parameters < job.result.dense.parameters
    assert job.result.pruned.kv_bytes_per_token < job.result.dense.kv_bytes_per_token
    assert job.result.checkpoint == "checkpoint"
    assert {artifact.kind for artifact in job.artifacts} == {"checkpoint", "result", "metrics", "plot", "log"}


def test_its_events_tell_the_story_without_gaps(finished):
    _, events = finished
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    states = [event.data["to"] for event in events if event.type == "state"]
    assert states == ["queued", "running", "succeeded"]
    phases = [event.data["phase"] for event in events if event.type == "phase"]
    assert (phases[0], phases[-1]) == ("loading", "publishing")
    assert [event.data["cycle"] for event in events if event.type == "checkpoint"] == [1, 2]


def test_one_trace_leads_from_its_request_to_its_child(finished, service):
    job, _ = finished
    (log,) = (artifact.id for artifact in job.artifacts if artifact.kind == "log")
    headers = {"Authorization": f"Bearer {service.api_key}"}
    runner_log = httpx.get(f"{service.base_url}/v1/artifacts/{log}/content", headers=headers, timeout=60).text
    logs = [(service.log_folder / f"{name}.log").read_text() for name in ("api", "worker")]
    api, worker, runner = map(lines_of_the_trace, (*logs, runner_log))
    (request,) = (line for line in api if line["logger"] == "api.access")
    assert (request["method"], request["path"], request["status"]) == ("POST", "/v1/jobs", 201)
    said = [line["message"] for line in worker if line["logger"] == "worker.attempt"]
    assert said == ["the attempt begins", "the attempt has ended: succeeded"]
    said = [line["message"] for line in runner if line["logger"] == "worker.runner"]
    assert said == ["the experiment begins", "the experiment has ended"]
    for line in (*worker, *runner):
        assert (line["job_id"], line["attempt"], line["token"]) == (job.id, 1, 1)
        assert line["request_id"] == request["request_id"]
    assert service.api_key not in "".join(logs)


def lines_of_the_trace(log):
    """What Celery prints when a worker stops is the one thing that is no JSON."""
    lines = [line for line in log.splitlines() if line and not line.startswith("worker: ")]
    return [line for line in map(json.loads, lines) if line.get("trace_id") == TRACE]


def test_its_checkpoint_loads_with_plain_transformers_in_a_fresh_process(finished, client, tmp_path):
    job, _ = finished
    folder = client.download_checkpoint(job.id, tmp_path / "pruned")
    command = [sys.executable, "-P", "-c", RELOAD, str(folder)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=offline, cwd=tmp_path)
    parameters, tokens = map(int, done.stdout.split())
    assert parameters == job.result.pruned.parameters
    assert tokens > 5


def test_it_is_listed_by_name_with_its_attempt(finished, client):
    job, _ = finished
    assert [listed.id for listed in client.list(name="tiny", state="succeeded")] == [job.id]
    (attempt,) = client.attempts(job.id)
    assert (attempt.number, attempt.outcome) == (1, "succeeded")


def test_an_upload_is_pruned_and_what_came_of_it_is_pruned_again(service, client, tiny_spec, tmp_path):
    model = {path.name: path.read_bytes() for path in (BUILTIN_MODELS / "llama").iterdir()}
    text = {"stories.txt": "\n\n".join(split_stories("train", 400)).encode()}
    data = {"source": "upload", "train": upload(service, "text", text), "sequence_length": 64}
    # Layers that differ: only our own loader can go on with them.
    prune = {**QUICK_PRUNE, "target": {"sparsity": 0.25}, "protected_layers": [0], "calibration_sequences": 4}

    def run(**source):
        job = client.wait(client.submit(tiny_spec(model=source, data=data, prune=prune, heal=None)).id)
        assert (job.state, job.error) == ("succeeded", None)
        folder = client.download_checkpoint(job.id, tmp_path / job.id)
        return job, json.loads((folder / "sentinel.json").read_text())

    first, manifest = run(source="upload", id=upload(service, "model", model))
    assert manifest["spec"]["model"]["source"] == manifest["spec"]["data"]["source"] == "upload"
    assert manifest["sources"]["model"] == {name: sha256(content) for name, content in model.items()}
    assert manifest["sources"]["text"] == {"train": sha256(text["stories.txt"])}
    assert first.result.export_form == "remote_code"
    second, again = run(source="job", id=first.id)
    assert again["spec"]["model"] == {"source": "job", "id": first.id, "dtype": "float32"}
    weights = sha256((tmp_path / first.id / "model.safetensors").read_bytes())
    assert again["sources"]["model"]["model.safetensors"] == weights
    assert second.result.dense.parameters == first.result.pruned.parameters > second.result.pruned.parameters


def upload(service, kind, files):
    """Its id."""
    declared = [{"path": path, "bytes": len(data), "sha256": sha256(data)} for path, data in files.items()]
    headers = {"Authorization": f"Bearer {service.api_key}"}
    with httpx.Client(base_url=service.base_url, headers=headers, timeout=60) as http:
        made = http.post("/v1/uploads", json={"kind": kind, "files": declared}).json()
        for file in made["files"]:
            sent = http.put(file["links"]["content"], content=files[file["path"]])
    assert sent.json()["state"] == "ready"
    return made["id"]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_the_same_idempotency_key_is_the_same_job(client, tiny_spec):
    first, second = (client.submit(tiny_spec(), idempotency_key="mine") for _ in range(2))
    assert first.id == second.id
    client.cancel(first.id)


def test_five_mistakes_are_told_at_once(client):
    mistakes = {
        "model": "builtin/llama",
        "prune": {"target": {"sparsity": 2}, "cycles": 0, "strategy": "best"},
        "heal": {"steps": -1},
        "sed": 0,
    }
    with pytest.raises(ServiceRefused) as refused:
        client.submit(mistakes)
    assert {error.pointer for error in refused.value.problem.errors} == {
        "/prune/target/sparsity",
        "/prune/cycles",
        "/prune/strategy",
        "/heal/steps",
        "/sed",
    }


def test_a_running_job_is_cancelled(client, tiny_spec):
    job = client.submit(tiny_spec(steps=1_000_000))
    for event in client.watch(job.id):
        if event.type == "metric" and event.data["name"] == "healing_loss":
            break
    assert client.cancel(job.id, grace_s=1).state == "cancelling"
    cancelled = client.wait(job.id)
    assert (cancelled.state, cancelled.artifacts, cancelled.checkpoint_uri) == ("cancelled", (), None)


def test_nobody_is_served_without_a_key(service):
    with SentinelClient(service.base_url, "sntl_0_wrong") as stranger, pytest.raises(ServiceRefused) as refused:
        next(stranger.list())
    assert refused.value.problem.status == 401


def test_the_api_process_stays_small(finished, service, processes_of):
    (api,) = [p for p in processes_of(service.key_file.parent) if "uvicorn" in p.cmdline()]
    assert isinstance(api, psutil.Process)
    assert api.memory_info().rss < 200 * MEGABYTE
