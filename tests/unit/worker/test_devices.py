"""What a worker finds to run on."""

import psutil
import pytest

from worker import devices
from worker.devices import Host, discover, visible

UUIDS = ["GPU-a", "GPU-b", "GPU-c"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [(None, UUIDS), ("", []), ("1", ["GPU-b"]), ("2, 0", ["GPU-c", "GPU-a"]), ("MIG-x", ["MIG-x"])],
)
def test_cuda_visible_devices_says_which_gpus_there_are(asked, left):
    assert visible(UUIDS, asked) == left


def test_a_host_without_a_visible_gpu_runs_jobs_itself(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (device,) = discover()
    assert {"auto", "cpu"} <= set(device.serves)
    total, free = device.memory()
    assert 0 < free < total


@pytest.mark.parametrize(
    ("limit", "used", "memory"), [("8000000", "3000000", (8_000_000, 5_000_000)), ("max", "1", None)]
)
def test_a_container_has_what_its_control_group_leaves(monkeypatch, tmp_path, limit, used, memory):
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    found = Host().memory()
    if memory is None:
        assert found.total == psutil.virtual_memory().total
    else:
        assert found == memory
