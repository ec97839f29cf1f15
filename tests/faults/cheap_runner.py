"""A fork server whose runners' experiment costs nothing: a chain of hashes, told as `worker.runner` tells its own.

Every loss depends on all before it, so a run that was resumed from a wrong state, or at a wrong place, shows in its
curve. It is a script, not a module: the child process of a job finds the service's packages, and not the tests.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sentinel.events import CheckpointSaved, Finished, MetricRecorded, Phase, PhaseStarted, Progressed
from sentinel.utils.metrics_log import MetricsLog
from worker import fork_server, runner

STEP_S = 0.08
WEIGHTS_BYTES = 100_000


class Point(NamedTuple):
    """One step of the chain."""

    step: int
    cycle: int
    loss: float
    digest: str


def chain(seed: int, cycles: int, steps: int, *, done: int = 0, digest: str = "") -> Iterator[Point]:
    """The steps of an experiment, or those that follow `done` cycles which left `digest`."""
    for cycle in range(done + 1, cycles + 1):
        for step in range((cycle - 1) * steps + 1, cycle * steps + 1):
            digest = hashlib.sha256(f"{seed} {step} {digest}".encode()).hexdigest()
            yield Point(step, cycle, int(digest[:12], 16) / 16**12, digest)


def weights_of(digest: str) -> bytes:
    """What stands for a model: bytes that nobody can know who did not compute the chain."""
    return hashlib.shake_256(digest.encode()).digest(WEIGHTS_BYTES)


def run(assignment: runner.Assignment, reporter: runner.LineReporter) -> None:
    """Run the chain that a spec asks for, with states, files and events like a real experiment's."""
    resume = assignment.resume
    state = json.loads((resume / "state.json").read_text()) if resume else {"done": 0, "digest": ""}
    with MetricsLog(Path("metrics.jsonl"), reporter, earlier=resume / "metrics.jsonl" if resume else None) as log:
        cycles, steps = assignment.spec["prune"]["cycles"], assignment.spec["heal"]["steps"]
        log.emit(PhaseStarted(phase=Phase.LOADING))
        digest = state["digest"]
        for point in chain(assignment.spec["seed"], cycles, steps, **state):
            time.sleep(STEP_S)
            digest = point.digest
            log.emit(Progressed(fraction=point.step / (cycles * steps)))
            log.emit(MetricRecorded(name="healing_loss", value=point.loss, step=point.step, cycle=point.cycle))
            if point.step % steps == 0:
                _save(point, log)
        _write_checkpoint(Path("checkpoint"), digest)
        result = {"digest": digest}
        Path("result.json").write_text(json.dumps(result))
        log.emit(Finished(result=result))


def _save(point: Point, log: MetricsLog) -> None:
    folder = Path("state") / f"cycle-{point.cycle:04d}"
    _write_checkpoint(folder / "checkpoint", point.digest)
    shutil.copyfile("metrics.jsonl", folder / "metrics.jsonl")
    (folder / "state.json").write_text(json.dumps({"done": point.cycle, "digest": point.digest}))
    log.emit(CheckpointSaved(cycle=point.cycle, directory=str(folder)))


def _write_checkpoint(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights_of(digest))


def main() -> None:
    """Fork runners like the real server's, with nothing to import and another experiment."""
    runner.warm_up = lambda: None
    runner._run = run
    fork_server.main()


if __name__ == "__main__":
    main()
