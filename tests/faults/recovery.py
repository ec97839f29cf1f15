"""How long the service takes to recover, with its default times: `python -m tests.faults.recovery --json`.

A worker that is killed, Redis that is away for a minute, jobs that are cancelled. Processes, database and Redis are
real; the experiment is the cheap one.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.faults.campaign import database_of
from tests.faults.cluster import Cluster, running

LONG = {"cycles": 4, "steps": 100}  # 32 s
SHORT = {"cycles": 1, "steps": 2}
CANCELS = 10
GRACE_S = 3.0
REDIS_AWAY_S = 60.0
DEADLINE_S = 180.0


class Bench:
    """A cluster, looked after by a thread, and a client of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.http = httpx.Client(
            base_url=cluster.urls[0], headers={"Authorization": f"Bearer {cluster.api_key}"}, timeout=30
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend)
        self._thread.start()

    def close(self) -> None:
        """Let the cluster be."""
        self._stop.set()
        self._thread.join()
        self.http.close()

    def submit(self, cycles: int, steps: int, priority: int = 0) -> httpx.Response:
        """One cheap job."""
        spec = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}, "cycles": cycles}}
        return self.http.post("/v1/jobs", json={**spec, "heal": {"steps": steps}}, params={"priority": priority})

    def job(self, job_id: str) -> dict[str, Any]:
        """As it is now."""
        shown: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return shown

    def wait(self, condition: Callable[[], bool]) -> float:
        """Seconds until the condition holds."""
        began = time.monotonic()
        while time.monotonic() - began < DEADLINE_S:
            with suppress(httpx.TransportError):
                if condition():
                    return time.monotonic() - began
            time.sleep(0.02)
        raise TimeoutError("It did not recover.")

    def state(self, job_id: str) -> str:
        """The word."""
        return str(self.job(job_id)["state"])

    def _tend(self) -> None:
        while not self._stop.wait(0.05):
            self.cluster.tend()


def worker_killed(bench: Bench) -> dict[str, float]:
    """From `kill -9` of a worker until its job runs again."""
    job_id = bench.submit(**LONG).json()["id"]
    bench.wait(lambda: bench.job(job_id)["kept_cycle"] == 1)
    owner = int(bench.http.get(f"/v1/jobs/{job_id}/attempts").json()["data"][0]["worker"].rpartition(":")[2])
    (name,) = (name for name, part in bench.cluster.parts.items() if part.process and part.process.pid == owner)
    bench.cluster.parts[name].kill(rest_s=0.0)
    again_s = bench.wait(lambda: bench.job(job_id)["attempt"] == 2)
    bench.wait(lambda: bench.state(job_id) == "succeeded")
    return {"lease_s": bench.cluster.settings.lease_s, "running_again_s": again_s}


def redis_away(bench: Bench) -> dict[str, float]:
    """Submits every second while Redis is gone, and the time until all of them are done once it is back."""
    bench.cluster.parts["redis"].kill(REDIS_AWAY_S)
    gone = time.monotonic()
    answers = []
    while time.monotonic() - gone < REDIS_AWAY_S:
        answers.append(bench.submit(**SHORT))
        time.sleep(1.0)
    ids = [answer.json()["id"] for answer in answers if answer.status_code == httpx.codes.CREATED]
    drained_s = bench.wait(lambda: all(bench.state(job_id) == "succeeded" for job_id in ids))
    slowest_ms = max(answer.elapsed.total_seconds() for answer in answers) * 1000
    return {"submits": len(answers), "accepted": len(ids), "slowest_submit_ms": slowest_ms, "drained_s": drained_s}


def cancelled(bench: Bench) -> dict[str, float]:
    """Acknowledgement, and the time until the slot is free and the last cycle's checkpoint can be downloaded."""
    acknowledged, free = [], []
    for _ in range(CANCELS):
        job_id = bench.submit(**LONG).json()["id"]
        bench.wait(lambda job_id=job_id: bench.job(job_id)["kept_cycle"] == 1)
        answer = bench.http.post(f"/v1/jobs/{job_id}/cancel", params={"grace_s": GRACE_S})
        acknowledged.append(answer.elapsed.total_seconds() * 1000)
        free.append(bench.wait(lambda job_id=job_id: bench.state(job_id) == "cancelled"))
        bench.http.get(f"/v1/jobs/{job_id}/checkpoint").raise_for_status()
    figures = {"grace_s": GRACE_S, "free_after_s_max": max(free)}
    return {"cancels": CANCELS, "acknowledged_ms_p50": statistics.median(acknowledged),
            "acknowledged_ms_max": max(acknowledged), **figures}  # fmt: skip


def main() -> None:
    """Print each figure; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="recovery-"))
    figures: dict[str, dict[str, float]] = {}
    with database_of(options.database, folder) as (url, server), running(folder / "home", server, url, {}) as cluster:
        bench = Bench(cluster)
        try:
            bench.wait(lambda: bench.http.get("/readyz").is_success)
            for measure in (cancelled, redis_away, worker_killed):
                figures[measure.__name__] = measure(bench)
                print(measure.__name__, {name: round(value, 1) for name, value in figures[measure.__name__].items()})
        finally:
            bench.close()
    if options.json:
        print(json.dumps({"database": options.database, **figures}))


if __name__ == "__main__":
    main()
