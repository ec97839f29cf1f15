"""Kills a healing with SIGKILL wherever it is, resumes it, and compares the weights with those of an undisturbed one.

`python -m tests.faults.healing_kills --kills 20`: forks each run from one process that has imported torch, waits until
it has taken as many steps as a seed says, kills it, and lets another go on from the newest state.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

from sentinel import experiment
from sentinel.events import Event
from sentinel.spec import parse_spec

STEPS = 15
DEADLINE_S = 120
VARIANTS = {
    "distill": {},
    "adapters": {"method": "lora", "lora": {"rank": 4}},
    "cached": {"teacher_top_k": 16, "schedule": "linear"},
    "cross_entropy": {"loss": "cross_entropy", "precision": "bfloat16"},
}


class Silent:
    """Hears nothing."""

    def emit(self, event: Event) -> None:
        """Ignore it."""


def run(variant: str, output: Path, *, resume: Path | None) -> None:
    """One experiment of two cycles on a built-in model, which saves its state every third step."""
    heal = {"steps": STEPS, "save_every": 3, "batch_tokens": 256, "learning_rate": 1e-3, **VARIANTS[variant]}
    prune = {"target": {"sparsity": 0.5}, "cycles": 2, "strategy": "magnitude", "compensation": None, "search": None}
    spec = parse_spec(
        {
            "model": "builtin/llama",
            "data": {"source": "builtin", "sequence_length": 64},
            "prune": {**prune, "calibration_sequences": 8},
            "heal": heal,
            "evaluate": {"tokens": 512, "prompts": []},
            "device": "cpu",
        }
    )
    experiment.run(spec, output=output, reporter=Silent(), resume=resume, save_interval_s=0)


def forked(variant: str, output: Path, *, resume: Path | None = None) -> int:
    """A process that runs one."""
    child = os.fork()
    if child:
        return child
    try:
        run(variant, output, resume=resume)
        os._exit(0)
    finally:
        os._exit(1)


def finish(child: int) -> None:
    """Wait for a process that must succeed."""
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError("A run failed.")


def kill_after(child: int, output: Path, steps: int, delay_s: float) -> None:
    """SIGKILL, some time after a healing has taken so many steps."""
    metrics, began = output / "metrics.jsonl", time.monotonic()
    while not metrics.exists() or metrics.read_text().count('"healing_loss"') < steps:
        if time.monotonic() - began > DEADLINE_S:
            raise RuntimeError(f"The run did not come to {steps} steps.")
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def weights(output: Path) -> dict[str, torch.Tensor]:
    """Of the finished checkpoint."""
    return load_file(output / "checkpoint" / "model.safetensors")


def newest_state(output: Path) -> Path | None:
    """Where to go on from."""
    states = sorted(path for path in (output / "state").glob("cycle-*") if path.suffix != ".partial")
    return states[-1] if states else None


def one_kill(seed: int, whole: Path, folder: Path) -> str:
    """What happened, ending with `same` or `OTHER WEIGHTS`."""
    draw = random.Random(seed)
    variant = list(VARIANTS)[seed % len(VARIANTS)]
    steps, delay_s = draw.randint(1, 2 * STEPS - 2), draw.uniform(0, 0.05)
    first, second = folder / f"{seed}-first", folder / f"{seed}-second"
    kill_after(forked(variant, first), first, steps, delay_s)
    state = newest_state(first)
    finish(forked(variant, second, resume=state))
    expected, found = weights(whole / variant), weights(second)
    same = expected.keys() == found.keys() and all(expected[name].equal(value) for name, value in found.items())
    place = state.name if state else "the beginning"
    verdict = "same" if same else "OTHER WEIGHTS"
    return f"seed {seed}: {variant}, killed behind step {steps}, went on from {place}: {verdict}"


def main() -> None:
    """Kill so many runs; exit code 1 if one ended with other weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that there is no pool of threads that a fork would lack
    disable_progress_bar()
    seeds = range(options.first_seed, options.first_seed + options.kills)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in {list(VARIANTS)[seed % len(VARIANTS)] for seed in seeds}:
            finish(forked(variant, folder / "whole" / variant))
        lines = []
        for seed in seeds:
            lines.append(one_kill(seed, folder / "whole", folder))
            print(lines[-1], flush=True)
    same = sum(line.endswith("same") for line in lines)
    print(f"{same} of {len(lines)} ended with the weights of an undisturbed run, bit for bit.")
    sys.exit(same != len(lines))


if __name__ == "__main__":
    main()
