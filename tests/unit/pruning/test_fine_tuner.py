import copy

import pytest
import torch

from sentinel.errors import TrainingDiverged
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.spec import Heal


def heal(model, dense, windows, *, seed=1, **settings):
    losses = []
    tuner = FineTuner(heal=Heal(steps=12, batch_tokens=72, learning_rate=3e-3, **settings), dense=dense)
    tuner.fine_tune(model, windows, seed=seed, on_step=lambda _, loss: losses.append(loss))
    return losses


@pytest.fixture
def pruned(model, family):
    dense = copy.deepcopy(model)
    apply_removal(model, family, {"attention": {0: [0], 1: [1], 2: [2]}, "mlp": {1: range(8)}})
    return model, dense


@pytest.mark.parametrize("loss", ["cross_entropy", "distill"])
def test_healing_lowers_its_loss(pruned, windows, loss):
    model, dense = pruned
    losses = heal(model, dense, windows, loss=loss)
    assert len(losses) == 12
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])


def test_distillation_of_the_dense_model_itself_has_nothing_to_learn(model, windows):
    assert heal(model, copy.deepcopy(model), windows)[0] == pytest.approx(0, abs=1e-6)


def test_healing_repeats_bit_for_bit_and_follows_its_seed(pruned, windows):
    model, dense = pruned
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    heal(model, dense, windows)
    heal(twin, dense, windows)
    heal(other, dense, windows, seed=2)
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)]
    differs = [torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not all(differs)


def test_shapes_stay_cut_and_the_dense_model_stays_as_it_was(pruned, family, windows):
    model, dense = pruned
    counts = {unit: family.counts(model, unit) for unit in ("attention", "mlp")}
    before = copy.deepcopy(dense.state_dict())
    heal(model, dense, windows)
    assert {unit: family.counts(model, unit) for unit in ("attention", "mlp")} == counts
    assert counts["attention"] == [3, 3, 3]
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


def test_the_gradient_is_that_of_the_whole_batch(pruned, windows, monkeypatch):
    """Micro-batches change memory, not the result."""
    model, dense = pruned
    twin = copy.deepcopy(model)
    whole = heal(model, dense, windows)
    monkeypatch.setattr("sentinel.data.loaders.windows.FORWARD_TOKENS", 24)
    split = heal(twin, dense, windows)
    assert split == pytest.approx(whole, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(pruned, windows):
    model, dense = pruned
    with torch.no_grad():
        dense.get_input_embeddings().weight[3] = torch.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingDiverged, match="step 1 of 12"):
        heal(model, dense, torch.full_like(windows, 3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_epochs_count_passes_over_the_text(windows):
    assert steps_per_cycle(Heal(epochs=2, batch_tokens=48), windows) == 6
    assert steps_per_cycle(Heal(steps=7), windows) == 7


def test_bfloat16_is_of_the_arithmetic_not_of_the_weights(pruned, windows):
    model, dense = pruned
    exact = copy.deepcopy(model)
    losses, expected = heal(model, dense, windows, precision="bfloat16"), heal(exact, dense, windows)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.1)
