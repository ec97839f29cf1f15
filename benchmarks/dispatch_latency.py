"""Claim: with a warm runner, a submitted job is `running` within half a second (p50).

Starts the embedded service, submits jobs one after the other, each once the runner is warm, and
measures from before the request until the job's `started_at` could be read as running.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from api.settings import Settings
from sentinel.client import SentinelClient
from worker.embedded import EmbeddedService

SPEC = {
    "model": "builtin/llama",
    "prune": {"target": {"sparsity": 0.25}, "calibration_sequences": 1, "search": None},
    "heal": None,
    "evaluate": {"tokens": 128, "prompts": []},
}
WARM_UP_S = 10.0  # longer than the import of torch takes on a slow disk


def measure(jobs: int) -> list[float]:
    """Milliseconds from submit to running, one per job."""
    with (
        tempfile.TemporaryDirectory() as home,
        EmbeddedService(Settings(home=Path(home), port=0)) as service,
        SentinelClient(service.base_url, service.api_key) as client,
    ):
        return [_one(client) for _ in range(jobs)]


def _one(client: SentinelClient) -> float:
    time.sleep(WARM_UP_S)
    began = time.perf_counter()
    job = client.submit(SPEC)
    while client.get(job.id).state == "queued":
        time.sleep(0.002)
    elapsed_ms = (time.perf_counter() - began) * 1000
    client.wait(job.id)
    return elapsed_ms


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples = sorted(measure(options.jobs))
    figures = {"jobs": len(samples), "p50_ms": statistics.median(samples), "max_ms": samples[-1], "limit_p50_ms": 500}
    for name, value in figures.items():
        print(f"{name:>14} {value:>8.1f}")
    if options.json:
        print(json.dumps(figures | {"samples_ms": samples}))


if __name__ == "__main__":
    main()
