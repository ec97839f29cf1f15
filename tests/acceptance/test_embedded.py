"""Every way out of the embedded service leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sentinel.client import SentinelClient

COMMAND = [sys.executable, "-P", "-m", "worker.embedded", "--port"]


@pytest.fixture
def home(tmp_path):
    return (tmp_path / "home").resolve()


@pytest.fixture
def start(home):
    """Start the service as `make serve` does."""
    started = []

    def start(port="0"):
        # Not measured: while coverage starts, before any line of ours, Python swallows a Ctrl-C.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        environment["SENTINEL_HOME"] = str(home)
        started.append(
            subprocess.Popen(
                [*COMMAND, port], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def base_url(process):
    """Where the service says that it listens, once it does."""
    return process.stdout.readline().split()[3]


@pytest.mark.parametrize("after_s", [0.2, 1.3, 2.1, 3.7])
def test_ctrl_c_while_it_starts(start, home, processes_of, wait_until_gone, after_s):
    process = start()
    time.sleep(after_s)  # a moment of its start, whichever that is
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert wait_until_gone(processes_of(home)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_middle_of_a_job(start, home, processes_of, wait_until_gone, tiny_spec, number):
    process = start()
    url = base_url(process)
    with SentinelClient(url, (home / "api_key").read_text().strip()) as client:
        job = client.submit(tiny_spec(steps=1_000_000))
        next(event for event in client.watch(job.id) if event.data.get("name") == "healing_loss")
    parts = processes_of(home)
    assert len(parts) >= 5  # Redis, API, worker, its two children
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert wait_until_gone(parts) == []
    assert processes_of(home) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0
    for log in (home / "logs").iterdir():
        assert "leaked" not in log.read_text()
    assert "leaked" not in errors


def test_a_port_that_is_taken_is_named(start, home, processes_of, wait_until_gone):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "pass another with --port" in errors
    assert wait_until_gone(processes_of(home)) == []
