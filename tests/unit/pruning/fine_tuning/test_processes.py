"""Several processes that share every batch end like one with the whole batch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from sentinel.errors import DataInvalid, SpecInvalid
from tests.unit.pruning.fine_tuning import shared_healing

REPOSITORY = Path(__file__).parents[4]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    command = [*LAUNCH, "--rdzv-endpoint", "127.0.0.1:0", shared_healing.__file__, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", shared_healing.VARIANTS)
def test_two_processes_end_like_one(folder, name):
    variant = shared_healing.VARIANTS[name]
    alone, recorder = shared_healing.heal(None, **variant, micro_batch_tokens=24, evaluate_every=4)
    expected = alone.state_dict()
    both = [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2)]
    for parameter, value in both[0].items():
        assert value.equal(both[1][parameter])
        torch.testing.assert_close(value, expected[parameter], rtol=0, atol=1e-5)
    learnt_from, heard = [], []
    for rank in range(2):
        count, *losses = ast.literal_eval((folder / f"{name}-{rank}.txt").read_text())
        learnt_from.append(count)
        heard.append(losses)
    assert learnt_from == [3 * 12, 2 * 12]  # of five windows in each of twelve batches
    assert recorder.learnt_from == 5 * 12
    assert heard[0] == heard[1] == pytest.approx(list(recorder.losses.values()), abs=1e-5)


def test_a_batch_must_have_a_window_for_each():
    with pytest.raises(DataInvalid, match=r"1 window\(s\) per batch cannot be shared by 2 processes"):
        shared_healing.heal(TwoProcesses(), batch_tokens=24)


def test_the_precision_is_said_in_one_place():
    """An accelerator would leave its own on the model."""
    with pytest.raises(SpecInvalid, match=r"mixed_precision 'bf16'.*heal\.precision"):
        shared_healing.heal(InBfloat16())


class TwoProcesses(Accelerator):
    """As it is in one of two processes, before anything is shared."""

    num_processes = 2


class InBfloat16(Accelerator):
    """As `mixed_precision="bf16"` makes it; a real one would be every later one of this process."""

    mixed_precision = "bf16"
