"""Law 7 inside one healing: killed anywhere and resumed, it ends with the same weights."""

import copy

import pytest
import torch

from sentinel.errors import CheckpointInvalid
from tests.unit.pruning.fine_tuning.healing import heal, ruin, same_weights

VARIANTS = {
    "distill": {},
    "measured": {"loss": "cross_entropy", "evaluate_every": 2, "learning_rate": 3e-2},
    "adapters": {"method": "lora", "loss": "cross_entropy", "evaluate_every": 2, "learning_rate": 3e-2},
    "float16": {"precision": "float16", "schedule": "linear"},
    "cached": {"teacher_top_k": 5, "weight_decay": 0.1},
}


class Killed(Exception):
    """Stands for SIGKILL."""


class Kept:
    """Keeps states in a folder and dies after the one of `last`."""

    def __init__(self, folder, model, *, last):
        self.folder, self.model, self.last = folder, model, last

    def due(self):
        return True

    def keep(self, step, write):
        self.weights = copy.deepcopy(self.model)
        write(self.folder)
        if step == self.last:
            raise Killed


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("step", [2, 8])
def test_a_killed_healing_ends_with_the_same_weights(pruned, windows, tmp_path, settings, step):
    model, dense = pruned
    settings = {**settings, "held_out": windows[4:], "save_every": 2}
    whole, start = copy.deepcopy(model), copy.deepcopy(model)
    expected, healed = heal(whole, dense, windows[:4], **settings)
    kept = Kept(tmp_path, start, last=step)
    with pytest.raises(Killed):
        heal(start, dense, windows[:4], keeper=kept, **settings)
    rest, resumed = heal(kept.weights, dense, windows[:4], resume=tmp_path, **settings)
    assert same_weights(kept.weights, whole)
    assert resumed == healed
    assert rest.losses == {at: loss for at, loss in expected.losses.items() if at > step}
    assert rest.measurements == {at: loss for at, loss in expected.measurements.items() if at > step}
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_keeping_a_state_changes_nothing(pruned, windows, tmp_path):
    model, dense = pruned
    twin = copy.deepcopy(model)
    heal(model, dense, windows, save_every=3, method="lora")
    heal(twin, dense, windows, save_every=3, method="lora", keeper=Kept(tmp_path, twin, last=None))
    assert (tmp_path / "adapters.safetensors").exists()
    assert same_weights(model, twin)


@pytest.mark.parametrize(("worse_at", "last"), [(12, 20), (13, 15)], ids=["later", "at once"])
def test_what_was_left_out_before_still_counts(pruned, windows, tmp_path, worse_at, last):
    """The losses by which a jump is told, and the halved rate, go along."""
    model, dense = pruned
    start, settings = copy.deepcopy(model), {"steps": 30, "save_every": 5, "loss": "cross_entropy"}

    def worsen(target):
        def hurt(step):
            if step == worse_at:
                with torch.no_grad():
                    ruin(target.get_output_embeddings().weight)

        return hurt

    _, healed = heal(model, dense, windows, on_step=worsen(model), **settings)
    assert healed.put_back == 1
    kept = Kept(tmp_path, start, last=last)
    with pytest.raises(Killed):
        heal(start, dense, windows, keeper=kept, on_step=worsen(start), **settings)
    _, resumed = heal(kept.weights, dense, windows, resume=tmp_path, **settings)
    assert resumed == healed
    assert same_weights(kept.weights, model)


@pytest.mark.parametrize("file", ["training.json", "optimizer.safetensors", "random.safetensors"])
def test_a_damaged_state_is_refused(pruned, windows, tmp_path, file):
    model, dense = pruned
    kept = Kept(tmp_path, model, last=2)
    with pytest.raises(Killed):
        heal(model, dense, windows, keeper=kept, save_every=2)
    (tmp_path / file).write_bytes(b"\x00damaged")
    with pytest.raises(CheckpointInvalid, match="saved"):
        heal(model, dense, windows, resume=tmp_path, save_every=2)
