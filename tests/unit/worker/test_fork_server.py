"""Runners forked by a server whose experiment is the cheap one of the fault schedules."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from sentinel.model_limits import ModelLimits
from tests.faults import cheap_runner
from worker import fork_server
from worker.child import Runner, RunnerUnavailable
from worker.fork_server import ForkServer
from worker.runner import Assignment

ASSIGNMENT = Assignment(
    spec={"prune": {"cycles": 1}, "heal": {"steps": 2}, "seed": 7},
    resume=None,
    fetched={},
    allowed_roots=[],
    limits=ModelLimits(),
    hub_token=None,
    memory_bytes=0,
    log_fields={},
)
NEVER = threading.Event()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fork_server, "SERVER", ("-P", cheap_runner.__file__))
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    """Start a runner and wait until it is forked."""
    runners = []

    def start():
        runners.append(Runner(tmp_path / f"runner{len(runners)}", {}, server.start))
        assert runners[-1].wait_ready(NEVER)
        return runners[-1]

    yield start
    for runner in runners:
        runner.close()


def events_of(runner):
    events, ended = [], False
    while not ended:
        more, ended = runner.next_events(wait_s=5, limit=100)
        events += more
    return events


def test_each_runner_works_in_its_folder_and_ends_with_its_own_code(start):
    first, second = start(), start()
    for runner in (first, second):
        assert psutil.Process(runner.pid).cwd() == str(runner.output)
    first.assign(ASSIGNMENT)
    assert [event.type for event in events_of(first)].count("metric") == 2
    assert (first.wait(), first.alive, second.alive) == (0, False, True)
    assert (first.output / "result.json").exists()
    assert list(second.output.iterdir()) == []
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait() == -signal.SIGTERM


def test_temporary_files_go_to_the_runner_s_folder_though_the_server_had_one(monkeypatch, tmp_path):
    telling = tmp_path / "telling.py"
    telling.write_text(
        "import tempfile\n"
        "from worker import fork_server, runner\n"
        "runner.warm_up = tempfile.gettempdir\n"
        "runner._run = lambda *_: print(tempfile.gettempdir(), flush=True)\n"
        "fork_server.main()\n"
    )
    monkeypatch.setattr(fork_server, "SERVER", ("-P", str(telling)))
    server = ForkServer()
    runners = [Runner(tmp_path / f"runner{i}", {}, server.start) for i in range(2)]
    for runner in runners:
        assert runner.wait_ready(NEVER)
        runner.assign(ASSIGNMENT)
        runner.wait()
        assert runner.log_tail() == str(runner.folder / "tmp")
    server.close()
    for runner in runners:
        runner.close()


def test_a_runner_holds_nothing_of_the_others(start):
    runners = [start() for _ in range(3)]
    assert {psutil.Process(runner.pid).num_fds() for runner in runners} == {psutil.Process(runners[0].pid).num_fds()}
    assert len({os.getsid(runner.pid) for runner in runners}) == 3


def test_a_killed_server_takes_its_runners_along_and_the_next_runner_has_a_new_one(start, wait_until_gone):
    runners = [start(), start()]
    processes = [psutil.Process(runner.pid) for runner in runners]
    parent = processes[0].parent()
    parent.kill()
    assert wait_until_gone(processes) == []
    assert [runner.wait() for runner in runners] == [-signal.SIGKILL] * 2
    assert psutil.Process(start().pid).parent() != parent


def test_a_server_that_cannot_start_says_why_in_the_runner_s_log(monkeypatch, tmp_path):
    monkeypatch.setattr(fork_server, "SERVER", ("-c", "import sys; sys.exit('no torch here')"))
    server = ForkServer()
    runner = Runner(tmp_path / "runner", {}, server.start)
    with pytest.raises(RunnerUnavailable, match="no torch here"):
        runner.wait_ready(NEVER)
    with pytest.raises(ProcessLookupError):
        _ = runner.pid
    runner.close()
    server.close()


def test_closing_does_not_wait_until_the_server_is_warm(monkeypatch, tmp_path):
    monkeypatch.setattr(fork_server, "SERVER", ("-c", "import time; time.sleep(1000)"))
    server = ForkServer()
    runner = Runner(tmp_path / "runner", {}, server.start)
    assert runner.alive
    server.close()
    assert not runner.alive
    runner.close()


WORKER = """
import sys, threading
from pathlib import Path
from worker import fork_server
from worker.child import Runner
from worker.fork_server import ForkServer

if sys.argv[2] == "ready":
    fork_server.SERVER = ("-P", sys.argv[3])
server = ForkServer()
runner = Runner(Path(sys.argv[1]) / "runner", {}, server.start)
if sys.argv[2] == "ready":
    runner.wait_ready(threading.Event())
print("started", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("moment", ["importing", "ready"])
def test_everything_ends_with_the_worker(tmp_path, moment, wait_until_gone):
    command = [sys.executable, "-c", WORKER, str(tmp_path), moment, cheap_runner.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "started\n"
        family = psutil.Process(worker.pid).children(recursive=True)
        assert len(family) == {"importing": 1, "ready": 2}[moment]
        worker.kill()
    assert wait_until_gone(family, timeout_s=5) == []


def test_no_room_for_a_process_costs_only_that_runner(monkeypatch, tmp_path):
    crowded = tmp_path / "crowded.py"
    crowded.write_text(
        f"import sys; sys.path.insert(0, {str(Path(cheap_runner.__file__).parents[2])!r})\n"
        "import os; fork = os.fork; calls = []\n"
        "def crowd():\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "    return fork()\n"
        "os.fork = crowd\n"
        "from tests.faults import cheap_runner; cheap_runner.main()\n"
    )
    monkeypatch.setattr(fork_server, "SERVER", ("-P", str(crowded)))
    server = ForkServer()
    first, second, third = (Runner(tmp_path / f"runner{i}", {}, server.start) for i in range(3))
    assert first.wait_ready(NEVER)
    with pytest.raises(RunnerUnavailable, match="Resource temporarily unavailable"):
        second.wait_ready(NEVER)
    assert third.wait_ready(NEVER)
    assert first.alive
    server.close()
    for runner in (first, second, third):
        runner.close()
