"""Adapters: nothing at the start, exact when merged, nothing left behind."""

import copy

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from sentinel.errors import CheckpointInvalid, SpecInvalid, TrainingDiverged
from sentinel.heal_spec import LowRank
from sentinel.models.evaluation import mean_loss
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.fine_tuning.low_rank import Adapters
from sentinel.pruning.fine_tuning.optimization import factors_of_groups
from tests.unit.pruning.fine_tuning.healing import heal, same_weights

GROUPS = {"attention": {1: [0]}}


@pytest.fixture
def adapters(pruned, family):
    model, _ = pruned
    apply_removal(model, family, {"attention": {1: [0, 1, 2]}})  # a layer without attention
    return Adapters(model, family, LowRank(rank=3, alpha=6), seed=1)


def learn_something(adapters):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapters.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)


def test_they_change_nothing_until_they_have_learnt_something(pruned, family, windows):
    model, _ = pruned
    before = model(windows).logits
    adapters = Adapters(model, family, LowRank(), seed=1)
    assert torch.equal(model(windows).logits, before)
    learn_something(adapters)
    assert not torch.equal(model(windows).logits, before)
    with adapters.set_aside():
        assert torch.equal(model(windows).logits, before)


def test_a_model_without_projections_is_refused(pruned, family):
    model, _ = pruned
    for unit in ("attention", "mlp"):
        apply_removal(model, family, {unit: {i: range(n) for i, n in enumerate(family.counts(model, unit))}})
    with pytest.raises(SpecInvalid, match="left no projection"):
        Adapters(model, family, LowRank(), seed=1)


def test_some_groups_learn_faster(pruned, family, windows):
    """What a group's outputs are made by, so many times from the first step on; what reads its inputs, from then on."""
    model, dense = pruned
    start, plain = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"method": "lora", "warmup_fraction": 0, "schedule": "constant", "weight_decay": 0}

    def moved(healed, group):
        """By how much each of the group's slices has, and of them the output projection's is the last."""
        site = family.site(healed, 1, "attention")
        now, then = (family.group_weights(m, site, group) for m in (healed, start))
        return [float((a - b).norm()) for a, b in zip(now, then, strict=True) if not torch.equal(a, b)]

    heal(plain, dense, windows, steps=1, **settings)
    *usual, usual_out = moved(plain, 0)
    others = moved(plain, 1)
    heal(model, dense, windows, steps=1, factors=factors_of_groups(model, family, GROUPS, 5.0), **settings)
    *faster, out = moved(model, 0)
    assert faster == pytest.approx([5 * distance for distance in usual], rel=1e-3)
    assert out == pytest.approx(usual_out, rel=1e-3)
    assert moved(model, 1) == pytest.approx(others, rel=1e-3)

    first, second = copy.deepcopy(start), copy.deepcopy(start)
    heal(first, dense, windows, steps=8, **settings)
    heal(second, dense, windows, steps=8, factors=factors_of_groups(second, family, GROUPS, 50.0), **settings)
    assert moved(second, 0)[-1] > 1.5 * moved(first, 0)[-1]


def test_the_merged_weight_is_the_sum(pruned, windows, adapters):
    model, _ = pruned
    learn_something(adapters)
    with_adapters = model(windows).logits
    with adapters.set_aside():
        before = copy.deepcopy(model)
    learnt = dict(adapters.parameters())
    adapters.merge()
    adapters.remove()
    torch.testing.assert_close(model(windows).logits, with_adapters, rtol=1e-5, atol=1e-4)
    names = {name.rpartition(".lora_")[0] for name in learnt}
    for name in names:
        down, up = (learnt[f"{name}.lora_{side}.default.weight"] for side in "AB")
        module = model.get_submodule(name)
        delta = 2.0 * up @ down
        expected = before.get_submodule(name).weight + (delta.T if isinstance(module, Conv1D) else delta)
        assert torch.equal(module.weight, expected)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert changed == {f"{name}.weight" for name in names}


def test_a_sum_that_the_type_cannot_hold_is_said(pruned, windows):
    model, dense = pruned
    settings = {"method": "lora", "lora": LowRank(alpha=1e7), "loss": "cross_entropy", "learning_rate": 1.0, "steps": 1}
    with pytest.raises(TrainingDiverged, match=r"the weight of .*\.0\..* is not finite"):
        heal(model.half(), dense.half(), windows, **settings)


def test_nothing_is_left_behind(pruned, family):
    model, _ = pruned
    before, attributes = list(model.named_modules()), vars(model).keys()
    adapters = Adapters(model, family, LowRank(), seed=1)
    assert any("lora" in name for name, _ in model.named_modules())
    adapters.remove()
    assert list(model.named_modules()) == before
    assert vars(model).keys() == attributes


@pytest.mark.parametrize("loss", ["cross_entropy", "distill"])
def test_healing_with_adapters_lowers_its_loss_and_leaves_the_rest(pruned, windows, loss):
    model, dense = pruned
    before = copy.deepcopy(model)
    recorder, _ = heal(model, dense, windows, loss=loss, method="lora", lora={"rank": 4}, learning_rate=1e-2)
    losses = list(recorder.losses.values())
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])
    assert list(model.state_dict()) == list(before.state_dict())
    assert not same_weights(model, before)
    embeddings = model.get_input_embeddings().weight
    assert torch.equal(embeddings, before.get_input_embeddings().weight)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_adapters_of_float16_weights_learn_as_those_of_float32(pruned, windows, precision):
    model, dense = pruned
    twin = copy.deepcopy(model)
    settings = {"method": "lora", "learning_rate": 1e-2}
    expected, _ = heal(twin, dense, windows, **settings)
    found, _ = heal(model.half(), dense.half(), windows, precision=precision, **settings)
    assert found.losses == pytest.approx(expected.losses, rel=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_the_best_adapters_are_the_ones_that_are_merged(pruned, windows):
    model, dense = pruned
    settings = {"method": "lora", "loss": "cross_entropy", "evaluate_every": 2, "steps": 20, "learning_rate": 0.5}
    recorder, healed = heal(model, dense, windows[:4], held_out=windows[4:], **settings)
    assert healed.best_step == min(recorder.measurements, key=recorder.measurements.get) < 20
    assert mean_loss(model, windows[4:]) == pytest.approx(healed.held_out_loss, abs=1e-5)


def test_the_seed_decides_their_first_weights_and_nothing_else_is_drawn(model, family):
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    first, second = (Adapters(m, family, LowRank(), seed=7).parameters() for m in (model, twin))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adapters_of_another_shape_are_refused(pruned, adapters):
    tensors = {name: value.detach().clone() for name, value in adapters.parameters().items()}
    adapters.load(tensors)
    with pytest.raises(CheckpointInvalid, match="do not fit"):
        adapters.load({name: value[:1] for name, value in tensors.items()})
