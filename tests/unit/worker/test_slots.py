"""What a slot does when no runner can be started: it keeps what it has, says so, and tries again."""

import subprocess
import threading

import psutil
import pytest

from worker.child import RunnerUnavailable
from worker.devices import Host
from worker.slots import Slot

NOW = threading.Event()


class Starter:
    """Starts processes that are ready at once and wait for their assignment; says no while `refuses` is set."""

    def __init__(self):
        self.refuses = False

    def __call__(self, streams, folder, environment):
        if self.refuses:
            raise BlockingIOError("Resource temporarily unavailable")
        stdin, stdout, stderr = streams
        command = ["sh", "-c", "echo ready; cat"]
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=folder, env=environment, start_new_session=True
        )


@pytest.fixture
def starter():
    return Starter()


@pytest.fixture
def slot(tmp_path, starter):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    numbers = iter(range(99))

    def new_folder():
        (folder := scratch / str(next(numbers))).mkdir()
        return folder

    slot = Slot(Host(), tmp_path / "cache", new_folder, starter)
    yield slot
    slot.close()
    assert list(scratch.iterdir()) == []


def test_a_runner_is_handed_out_though_the_next_one_does_not_start(slot, starter):
    assert slot.wait_ready(NOW)
    starter.refuses = True
    runner = slot.take_runner()
    assert runner.alive
    runner.close()
    for _ in range(2):
        with pytest.raises(RunnerUnavailable, match="Resource temporarily unavailable"):
            slot.wait_ready(NOW)
    with pytest.raises(RunnerUnavailable):
        slot.take_runner()
    starter.refuses = False
    assert slot.wait_ready(NOW)


def test_a_runner_that_died_is_replaced_as_soon_as_one_starts(slot, starter):
    assert slot.wait_ready(NOW)
    slot._warm.kill()
    starter.refuses = True
    for _ in range(2):
        with pytest.raises(RunnerUnavailable):
            slot.wait_ready(NOW)
    starter.refuses = False
    assert slot.wait_ready(NOW)
    slot.take_runner().close()


def test_a_runner_that_does_not_start_leaves_no_pipes(slot, starter):
    starter.refuses = True
    slot.close()
    before = psutil.Process().num_fds()
    for _ in range(5):
        with pytest.raises(RunnerUnavailable):
            slot.wait_ready(NOW)
    assert psutil.Process().num_fds() == before
