import os
import threading

import psutil
import pytest

from worker.child import Runner, RunnerUnavailable, child_environment, spawn
from worker.fork_server import ForkServer

SECRETS = (
    *("SENTINEL_DATABASE_URL", "SENTINEL_REDIS_URL", "SENTINEL_STORAGE_URI", "DATABASE_URL", "PYTHONPATH"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NVIDIA_API_KEY", "HOME", "XDG_CACHE_HOME"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"),
)


def test_a_child_sees_no_secrets_and_what_it_needs(tmp_path):
    needed = {"PATH": "/bin", "HF_HOME": "/hf", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"}
    needed |= {
        "SENTINEL_CACHE": "/cache",
        "HF_ENDPOINT": "http://api/hub",
        "HF_HUB_OFFLINE": "1",
        "https_proxy": "http://proxy",
    }
    seen = child_environment(needed | dict.fromkeys(SECRETS, "secret"), scratch=tmp_path)
    assert needed.items() <= seen.items()
    assert "secret" not in seen.values()
    assert (seen["TMPDIR"], seen["HOME"]) == (str(tmp_path / "tmp"), str(tmp_path / "home"))
    assert seen["XDG_CACHE_HOME"] == "/cache"


@pytest.fixture(scope="module")
def fork_server():
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(params=["spawned", "forked"])
def runner(request, tmp_path):
    start = spawn if request.param == "spawned" else request.getfixturevalue("fork_server").start
    runner = Runner(tmp_path / "runner", {}, start)
    yield runner
    runner.close()


def test_a_child_is_its_own_session_without_secrets_and_ends_when_its_parent_s_pipe_closes(runner, wait_until_gone):
    assert runner.wait_ready(threading.Event())
    child = psutil.Process(runner.pid)
    assert os.getsid(runner.pid) == os.getpgid(runner.pid) == runner.pid
    assert child.cwd() == str(runner.output)
    assert {name for name in child.environ() if name.startswith("SENTINEL_")} <= {"SENTINEL_CACHE"}
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    runner._stdin.close()  # what the kernel does when the parent is killed
    assert wait_until_gone([child]) == []
    runner.wait()  # the fork server tells of a process's end after it
    with pytest.raises(RunnerUnavailable):  # it was ready, and has ended since
        runner.wait_ready(threading.Event())


def test_killing_twice_is_harmless_and_leaves_nothing(runner):
    runner.kill()
    runner.kill()
    assert not runner.alive
    assert runner.wait() == -9
    with pytest.raises(RunnerUnavailable):
        runner.wait_ready(threading.Event())


def test_waiting_for_a_runner_gives_way_to_a_stop(tmp_path):
    stop = threading.Event()
    stop.set()
    runner = Runner(tmp_path / "runner", {}, spawn)
    assert not runner.wait_ready(stop)
    runner.close()
