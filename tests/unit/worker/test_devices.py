"""What a worker finds to run on."""

import psutil
import pynvml
import pytest

from worker import devices
from worker.devices import DriverUnavailable, Host, discover, visible

UUIDS = ["GPU-a", "GPU-b", "GPU-c"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        *((None, UUIDS), ("", []), ("1", ["GPU-b"]), ("2, 0", ["GPU-c", "GPU-a"]), ("MIG-x", ["MIG-x"])),
        *(("-1", []), ("0,-1,1", ["GPU-a"]), ("0,3,1", ["GPU-a"])),
    ],
)
def test_cuda_visible_devices_says_which_gpus_there_are(asked, left):
    assert visible(UUIDS, asked) == left


def fail():
    raise pynvml.NVMLError_DriverNotLoaded


@pytest.mark.parametrize("asked", ["", " ", "-1"])
def test_a_host_without_a_visible_gpu_runs_jobs_itself(monkeypatch, asked):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    (device,) = discover()
    assert {"auto", "cpu"} <= set(device.serves)
    total, free = device.memory()
    assert 0 < free < total


@pytest.mark.parametrize("asked", [None, "0"])
def test_a_driver_that_does_not_answer_is_told(monkeypatch, asked):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if asked is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(DriverUnavailable, match="Driver Not Loaded"):
        discover()


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


def test_files_in_memory_leave_room_for_jobs(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("8000000\n")
    (tmp_path / "memory.current").write_text("7900000\n")
    (tmp_path / "memory.stat").write_text("anon 1900000\nfile 6000000\ninactive_file 4000000\nactive_file 1500000\n")
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    assert Host().memory() == (8_000_000, 5_600_000)
