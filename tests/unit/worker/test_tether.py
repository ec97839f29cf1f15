import signal
import subprocess
import sys

import psutil
import pytest

from worker.tether import tethered

# Starts a tethered `sleep` and says its id.
PARENT = """
import subprocess, sys
from worker.tether import tethered
child = subprocess.Popen(tethered(["sleep", "600"]), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_the_command_ends_with_a_parent_that_is_killed(wait_until_gone):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        while child.name() != "sleep":  # becomes it after the tie is made
            assert child.is_running()
        parent.kill()
    assert wait_until_gone([child]) == []


def test_the_command_runs_as_if_it_had_been_started_itself():
    done = subprocess.run(tethered(["sh", "-c", "echo out; exit 3"]), stdout=subprocess.PIPE, text=True, check=False)
    assert (done.stdout, done.returncode) == ("out\n", 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_parent_that_ended_before_the_tie_was_made_is_noticed():
    command = tethered(["echo", "must not run"])
    command[command.index(str(int(signal.SIGTERM))) - 1] = "1"  # as after the parent has ended
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 1)
