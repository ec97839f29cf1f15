"""The main job and a worker on an NVIDIA GPU, for machines that have one."""

import httpx
import pytest
import torch

from sentinel import experiment
from sentinel.spec import parse_spec
from worker import devices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


class Listener:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def run(spec, output):
    return experiment.run(parse_spec(spec), output=output, reporter=Listener())


@pytest.mark.parametrize("compensation", [None, "least_squares", "residual_least_squares", "reconstruction"])
def test_a_gpu_prunes_as_a_processor_does(tiny_spec, tmp_path, compensation):
    spec = tiny_spec(cycles=2)
    spec["prune"] |= {"strategy": "obs", "allocation": "global", "compensation": compensation}
    on_cpu, on_gpu = (run(spec | {"device": device}, tmp_path / device) for device in ("cpu", "cuda"))
    assert on_gpu.removed == on_cpu.removed
    assert on_gpu.dense.loss == pytest.approx(on_cpu.dense.loss, abs=1e-4)
    assert on_gpu.pruned.loss == pytest.approx(on_cpu.pruned.loss, abs=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_defaults_run_on_a_gpu(tmp_path, dtype):
    target = {"target": {"sparsity": 0.25}, "calibration_sequences": 32}
    data = {"source": "builtin", "sequence_length": 64}
    model = {"source": "builtin", "id": "llama", "dtype": dtype}
    spec = {"model": model, "data": data, "prune": target, "heal": {"steps": 5}, "evaluate": {"tokens": 4096}}
    result = run(spec | {"device": "cuda"}, tmp_path)
    assert result.pruned.groups.attention < result.dense.groups.attention
    assert result.pruned.loss < result.dense.loss + 0.1


@pytest.mark.parametrize("strategy", ["fisher", "taylor", "ablation", "entropy", "wanda", "random"])
def test_every_way_of_scoring_runs_on_a_gpu(tiny_spec, tmp_path, strategy):
    spec = tiny_spec() | {"device": "cuda", "heal": None}
    spec["prune"] |= {"strategy": strategy}
    result = run(spec, tmp_path)
    assert result.pruned.groups.attention < result.dense.groups.attention


def test_the_driver_tells_what_a_gpu_has():
    found = devices.discover()
    assert len(found) == torch.cuda.device_count()
    total = torch.cuda.get_device_properties(0).total_memory
    assert found[0].memory().total == pytest.approx(total, rel=0.1)
    assert 0 < found[0].memory().free <= found[0].memory().total


def test_a_worker_runs_jobs_on_its_gpu(service, client, tiny_spec):
    job = client.wait(client.submit(tiny_spec(device="cuda")).id, timeout_s=300)
    assert job.state == "succeeded", job.error
    headers = {"Authorization": f"Bearer {service.api_key}"}
    workers = httpx.get(f"{service.base_url}/v1/workers", headers=headers).json()["data"]
    slots = [slot for worker in workers for slot in worker["slots"]]
    assert {tuple(slot["devices"]) for slot in slots} == {("auto", "cuda")}
    assert len(slots) == torch.cuda.device_count()
