"""What an experiment finds around it: a real runner, forked and spawned, whose experiment only looks.

The experiment and torch are replaced, so that nothing has to be imported.
"""

import json
import os
import socket
import sys
import threading

import pytest

from sentinel.model_limits import ModelLimits
from worker import child, fork_server
from worker.child import Runner, spawn
from worker.fork_server import ForkServer
from worker.runner import Assignment

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "DATABASE_URL",
    "SENTINEL_DATABASE_URL",
    "NVIDIA_API_KEY",
    "HF_TOKEN_PATH",
    "PGPASSWORD",
)
LOOKING = """
import json, os, resource, socket, sys, tempfile, types
from pathlib import Path
from worker import {module}, runner

def look(spec, **told):
    seen = {{
        "environment": dict(os.environ),
        "files": sorted(os.readlink(f"/proc/self/fd/{{fd}}").partition(":")[0] for fd in os.listdir("/proc/self/fd") if
                        os.path.lexists(f"/proc/self/fd/{{fd}}")),
        "cores": resource.getrlimit(resource.RLIMIT_CORE),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "no_new_privileges": "NoNewPrivs:\\t1" in Path("/proc/self/status").read_text(),
        "temporary": tempfile.gettempdir(),
        "home": str(Path.home()),
        "folder": os.getcwd(),
        "limits": told["limits"].model_dump(),
    }}
    try:
        socket.create_connection(("127.0.0.1", int(spec.name)), timeout=5).close()
        seen["network"] = "reached"
    except OSError as error:
        seen["network"] = error.strerror
    print(json.dumps(seen), flush=True)

sys.modules["torch"] = types.SimpleNamespace(OutOfMemoryError=MemoryError)
sys.modules["sentinel.experiment"] = types.SimpleNamespace(run=look)
runner.warm_up = lambda: None
{module}.main()
"""
LIMITS = ModelLimits(layers=7)


@pytest.fixture(params=["forked", "spawned"])
def look(request, tmp_path, monkeypatch):
    """Run a spec whose experiment looks around; returns what it saw, and the runner's folder."""
    for name in SECRETS:
        monkeypatch.setenv(name, "s3cr3t")
    monkeypatch.setenv("HF_TOKEN", "hf_s3cr3t")
    script = tmp_path / "looking.py"
    script.write_text(LOOKING.format(module={"forked": "fork_server", "spawned": "runner"}[request.param]))
    monkeypatch.setattr(fork_server, "SERVER", ("-P", str(script)))
    monkeypatch.setattr(child, "RUNNER", ("-P", str(script)))
    server = ForkServer()
    start = server.start if request.param == "forked" else spawn

    def run(model, hub_token=None):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            runner = Runner(tmp_path / "runner", {}, start)
            assert runner.wait_ready(threading.Event())
            spec = {"model": model, "prune": {"target": {"sparsity": 0.5}}, "name": str(listening.getsockname()[1])}
            options = {
                "resume": None,
                "fetched": {},
                "allowed_roots": [],
                "memory_bytes": 0,
                "log_fields": {},
                "limits": LIMITS,
            }
            runner.assign(Assignment(spec=spec, hub_token=hub_token, **options))
            assert runner.wait() == 0, runner.log_tail()
            (line,) = [line for line in runner.log.read_text().splitlines() if line.startswith("{")]
            runner.close()
            return json.loads(line), runner.folder

    yield run
    server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
def test_an_experiment_has_no_secrets_no_network_and_nothing_that_stays(look):
    seen, folder = look("builtin/llama")
    assert "s3cr3t" not in json.dumps(seen["environment"])
    assert seen["network"] == os.strerror(101)
    assert seen["no_new_privileges"]
    assert seen["cores"] == [0, 0]
    assert seen["descriptors"] <= 4096
    assert set(seen["files"]) == {"pipe", str(folder / "runner.log")}
    where = [seen[name] for name in ("temporary", "home", "folder")]
    assert where == [str(folder / name) for name in ("tmp", "home", "output")]
    assert seen["limits"]["layers"] == 7
    assert not folder.exists()


def test_an_experiment_that_fetches_has_a_network_and_the_hub_s_token_alone(look):
    seen, _ = look("someone/model", hub_token="hf_s3cr3t")
    environment = seen["environment"]
    assert environment.pop("HF_TOKEN") == "hf_s3cr3t"
    assert "s3cr3t" not in json.dumps(environment)
    assert seen["network"] == "reached"
