"""`make demo`, as somebody runs it whose output is not a terminal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts/demo.py"
# The same script with a job that takes a tenth of the time: what it shows does not depend on how well a model heals.
SMALLER = """
import sys
sys.path.append(sys.argv[1])
import demo
demo.SPEC["prune"] |= {"calibration_sequences": 4, "compensation": "least_squares"}
demo.SPEC["heal"] |= {"steps": 2}
demo.SPEC["evaluate"] |= {"tokens": 1024}
demo.main()
"""


@pytest.fixture
def home(tmp_path):
    return (tmp_path / "home").resolve()


@pytest.fixture
def start(tmp_path, home):
    """Start a demo in a process group of its own, as a shell would."""
    started = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, "-P", *command],
            cwd=tmp_path,
            env=os.environ | {"SENTINEL_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def logs(home):
    return "".join(log.read_text() for log in (home / "logs").iterdir())


def test_it_shows_everything_and_leaves_nothing_running(start, home, tmp_path, processes_of):
    demo = start("-c", SMALLER, DEMO.parent)
    output, errors = demo.communicate(timeout=240)
    assert demo.returncode == 0, output + errors
    for shown in ("Submitted job_", "pruning", "perplexity", "KV cache", "KL(dense", "Once upon a time"):
        assert shown in output
    assert processes_of(home) == []
    assert "leaked" not in errors + logs(home)
    assert list((tmp_path / "outputs/demo").glob("job_*/model.safetensors"))


def test_ctrl_c_in_the_middle_leaves_nothing_running(start, home, processes_of):
    demo = start(DEMO)
    assert any(line.startswith("pruning") for line in demo.stdout)
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert processes_of(home) == []
    assert "leaked" not in errors + logs(home)
