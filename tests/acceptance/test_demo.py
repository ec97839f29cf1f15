"""`make demo`, as somebody runs it whose output is not a terminal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts/demo.py"


@pytest.fixture
def home(tmp_path):
    return (tmp_path / "home").resolve()


@pytest.fixture
def demo(tmp_path, home):
    """The running demo, in a process group of its own as a shell would make it."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(DEMO)],
        cwd=tmp_path,
        env=os.environ | {"SENTINEL_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.kill()
    process.communicate()


def logs(home):
    return "".join(log.read_text() for log in (home / "logs").iterdir())


def test_it_shows_everything_and_leaves_nothing_running(demo, home, tmp_path, processes_of):
    output, errors = demo.communicate(timeout=240)
    assert demo.returncode == 0, output + errors
    for shown in ("Submitted job_", "pruning", "perplexity", "KV cache", "KL(dense", "Once upon a time"):
        assert shown in output
    assert processes_of(home) == []
    assert "leaked" not in errors + logs(home)
    assert list((tmp_path / "outputs/demo").glob("job_*/model.safetensors"))


def test_ctrl_c_in_the_middle_leaves_nothing_running(demo, home, processes_of):
    assert any(line.startswith("pruning") for line in demo.stdout)
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert processes_of(home) == []
    assert "leaked" not in errors + logs(home)
