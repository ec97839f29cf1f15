"""What importing the API and the command costs: no torch and nothing that brings it, and little memory when serving."""

import os
import subprocess
import sys
import time

import httpx
import psutil

from api.store.database import upgrade

FORBIDDEN = ("torch", "transformers", "datasets", "numpy", "worker", "sentinel.experiment")
LARGEST_RSS_BYTES = 200 * 1024**2


def test_importing_the_api_loads_no_torch():
    code = f"import sys, api.main; print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_says_its_help_without_torch_and_without_httpx():
    code = """
import sys
from sentinel import cli
sys.argv = ["sentinel", "--help"]
try:
    cli.main()
finally:
    print([name for name in ("torch", "transformers", "numpy", "altair", "httpx", "asyncio") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def wait_for_port(process):
    """The port that a server started with port 0 has chosen."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        listening = [c for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        if listening:
            return listening[0].laddr.port
        time.sleep(0.05)
    raise AssertionError("the server did not listen in time")


def test_a_serving_process_stays_small(tmp_path):
    environment = os.environ | {
        "SENTINEL_HOME": str(tmp_path),
        "SENTINEL_REDIS_URL": f"redis+socket://{tmp_path}/none.sock",
    }
    upgrade(f"sqlite:///{tmp_path}/sentinel.db")
    key = subprocess.run(
        [sys.executable, "-m", "api.keys", "create", "--name", "test"],
        env=environment, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:app", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            base = f"http://127.0.0.1:{wait_for_port(process)}"
            spec = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}
            with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}) as client:
                for _ in range(50):
                    job = client.post("/v1/jobs", json=spec).raise_for_status().json()
                    client.get(job["links"]["self"]).raise_for_status()
                client.get("/v1/jobs").raise_for_status()
                client.get("/readyz").raise_for_status()
                client.get("/openapi.json").raise_for_status()
            assert psutil.Process(process.pid).memory_info().rss < LARGEST_RSS_BYTES
        finally:
            process.terminate()
