import copy

import pytest
import torch
from torch import nn

from sentinel.errors import SpecInvalid, TrainingDiverged
from sentinel.heal_spec import Heal
from sentinel.models.evaluation import mean_loss
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.fine_tuning.optimization import factors_of_groups
from tests.unit.pruning.fine_tuning.healing import QUICK, heal, same_weights
from tests.unit.pruning.tiny import tiny_gpt2


@pytest.mark.parametrize("loss", ["cross_entropy", "distill"])
def test_healing_lowers_its_loss(pruned, windows, loss):
    model, dense = pruned
    recorder, healed = heal(model, dense, windows, loss=loss)
    losses = list(recorder.losses.values())
    assert list(recorder.losses) == list(range(1, 13))
    assert (healed.steps, healed.left_out, healed.put_back, healed.best_step) == (12, 0, 0, 12)
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])


def test_distillation_of_the_dense_model_itself_has_nothing_to_learn(model, windows):
    assert heal(model, copy.deepcopy(model), windows)[0].losses[1] == pytest.approx(0, abs=1e-6)


def test_healing_repeats_bit_for_bit_and_follows_its_seed(pruned, windows):
    model, dense = pruned
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    heal(model, dense, windows)
    heal(twin, dense, windows)
    heal(other, dense, windows, seed=2)
    assert same_weights(model, twin)
    assert not same_weights(model, other)


def test_shapes_stay_cut_and_the_dense_model_stays_as_it_was(pruned, family, windows):
    model, dense = pruned
    counts = {unit: family.counts(model, unit) for unit in ("attention", "mlp")}
    before = copy.deepcopy(dense.state_dict())
    heal(model, dense, windows)
    assert {unit: family.counts(model, unit) for unit in ("attention", "mlp")} == counts
    assert counts["attention"] == [3, 3, 3]
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("settings", [{}, {"hidden_weight": 3.0}, {"loss": "cross_entropy"}, {"teacher_top_k": 5}])
def test_the_gradient_is_that_of_the_whole_batch(pruned, windows, settings):
    """Micro-batches change memory, not the result."""
    model, dense = pruned
    twin = copy.deepcopy(model)
    whole, _ = heal(model, dense, windows, **settings)
    split, _ = heal(twin, dense, windows, micro_batch_tokens=24, **settings)
    assert split.losses == pytest.approx(whole.losses, rel=1e-4)


def test_epochs_count_passes_over_the_text(windows):
    assert steps_per_cycle(Heal(epochs=2, batch_tokens=48), windows) == 6
    assert steps_per_cycle(Heal(epochs=10, batch_tokens=16 * 24), windows[:4]) == 10  # a batch is all there is
    assert steps_per_cycle(Heal(steps=7), windows) == 7


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_is_of_the_arithmetic_not_of_the_weights(pruned, windows, precision):
    model, dense = pruned
    exact = copy.deepcopy(model)
    (rounded, _), (expected, _) = heal(model, dense, windows, precision=precision), heal(exact, dense, windows)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rounded.losses != expected.losses
    assert rounded.losses == pytest.approx(expected.losses, rel=0.1)


def test_a_layer_computed_again_on_the_way_back_gives_the_same_gradient(pruned, family, windows):
    model, dense = pruned
    twin, calls = copy.deepcopy(model), []
    for each, name in ((model, "kept"), (twin, "computed again")):
        family.parts(each, 0, "attention")[-1].module.register_forward_hook(lambda *_, name=name: calls.append(name))
    heal(model, dense, windows, loss="cross_entropy")
    heal(twin, dense, windows, loss="cross_entropy", gradient_checkpointing=True)
    assert same_weights(model, twin)
    assert calls.count("computed again") == 2 * calls.count("kept") > 0
    assert not any("forward" in vars(module) for module in twin.modules())


def test_a_removed_group_stays_removed(pruned, family, windows):
    """Law 8: what was cut is not in the model, so that no step can bring it back."""
    model, dense = pruned
    before, shapes = copy.deepcopy(model), {name: value.shape for name, value in model.state_dict().items()}
    heal(model, dense, windows, weight_decay=0.1)
    assert not same_weights(model, before)
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes


def test_the_best_weights_by_the_held_out_windows_are_what_healing_ends_with(pruned, windows):
    model, dense = pruned
    training, held_out = windows[:4], windows[4:]
    recorder, healed = heal(
        model, dense, training, held_out=held_out, loss="cross_entropy", steps=20, evaluate_every=3, learning_rate=3e-2
    )
    assert list(recorder.measurements) == [3, 6, 9, 12, 15, 18, 20]
    best = min(recorder.measurements, key=recorder.measurements.get)
    assert best < 20
    assert (healed.best_step, healed.held_out_loss) == (best, recorder.measurements[best])
    assert mean_loss(model, held_out) == healed.held_out_loss


def test_a_healing_that_is_enough_is_measured_at_its_end(pruned, windows):
    model, dense = pruned
    asked = iter([False, False, False, True])  # before the first step and behind each
    recorder, healed = heal(
        model, dense, windows[:4], held_out=windows[4:], evaluate_every=5, until=lambda: next(asked)
    )
    assert (list(recorder.measurements), healed.steps, healed.best_step) == ([3], 3, 3)
    assert mean_loss(model, windows[4:]) == healed.held_out_loss


def test_what_is_enough_may_depend_on_the_measurement(pruned, windows):
    model, dense = pruned
    measured = []
    tuner = FineTuner(heal=Heal(**QUICK, evaluate_every=2), dense=dense)
    observer = Observer()
    observer.measured = lambda step, _loss: measured.append(step)
    healed = tuner.fine_tune(
        model, windows[:4], seed=1, held_out=windows[4:], observer=observer, until=lambda: bool(measured)
    )
    assert (healed.steps, measured) == (2, [2])


def test_healing_stops_when_it_has_not_got_better_for_long(pruned, windows):
    model, dense = pruned
    settings = {"loss": "cross_entropy", "steps": 200, "evaluate_every": 2, "patience": 2, "learning_rate": 3e-2}
    recorder, healed = heal(model, dense, windows[:4], held_out=windows[4:], **settings)
    assert healed.steps == healed.best_step + 4 < 200
    assert len(recorder.losses) == healed.steps


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.024)])
def test_the_rate_rises_and_falls_as_the_schedule_says(pruned, windows, rates, schedule, last):
    model, dense = pruned
    heal(model, dense, windows, steps=20, warmup_fraction=0.5, learning_rate=1e-3, schedule=schedule)
    assert rates[:11] == pytest.approx([1e-3 * i / 10 for i in range(11)])
    assert rates[-1] == pytest.approx(1e-3 * last, abs=1e-6)


@pytest.mark.parametrize(("warmup", "faster"), [(0, 5), (4, 2)])
def test_some_groups_learn_faster(pruned, family, windows, warmup, faster):
    """Their first step is so many times as long, as if the whole model had that rate; the others' is not.

    With a warm-up of four steps the first one has a quarter of what a factor of 5 adds.
    """
    model, dense = pruned
    plain, start = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"steps": 1, "warmup_fraction": 0, "schedule": "constant", "weight_decay": 0}
    heal(plain, dense, windows, **settings)
    factors = factors_of_groups(model, family, {"attention": {1: [0, 2]}, "mlp": {0: [3]}}, 5.0)
    heal(model, dense, windows, factors=factors, factor_warmup=warmup, **settings)

    def moved(healed, layer, unit, group):
        """By how much each of the group's slices has."""
        site = family.site(healed, layer, unit)
        now, then = (family.group_weights(m, site, group) for m in (healed, start))
        return torch.tensor([float((a - b).norm()) for a, b in zip(now, then, strict=True)])

    for layer, unit, group, factor in [
        (1, "attention", 0, faster),
        (1, "attention", 1, 1),
        (0, "mlp", 3, faster),
        (0, "mlp", 4, 1),
    ]:
        usual = moved(plain, layer, unit, group)
        assert usual.min() > 0
        torch.testing.assert_close(moved(model, layer, unit, group), factor * usual, rtol=1e-3, atol=1e-6)


def test_weights_of_a_smaller_type_stay_of_it(pruned, windows):
    model, dense = pruned
    before = copy.deepcopy(model.bfloat16())
    heal(model, dense, windows)
    assert not same_weights(model, before)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_all_weights_of_float16_are_refused(pruned, windows, precision):
    model, dense = pruned
    before = copy.deepcopy(model.half())
    with pytest.raises(SpecInvalid, match="bfloat16 or float32, or use `method: lora`"):
        heal(model, dense, windows, precision=precision)
    assert same_weights(model, before)


@pytest.mark.parametrize(("weights", "precision"), [("bfloat16", "float16"), ("float16", "bfloat16")])
def test_two_smaller_types_are_refused_where_torch_does_not_mix_them(pruned, windows, weights, precision):
    model, dense = (each.to(getattr(torch, weights)) for each in pruned)
    with pytest.raises(SpecInvalid, match=f"normalise {precision} with weights of {weights}"):
        heal(model, dense, windows, method="lora", precision=precision)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dropout_is_off_in_any_mode(windows, method):
    dense = tiny_gpt2()
    assert max(module.p for module in dense.modules() if isinstance(module, nn.Dropout)) > 0
    model, twin = copy.deepcopy(dense), copy.deepcopy(dense)
    expected, _ = heal(twin, dense, windows, method=method, held_out=windows, evaluate_every=4)
    model.train()
    dense.transformer.h[0].train()
    modes = [module.training for each in (model, dense) for module in each.modules()]
    found, _ = heal(model, dense, windows, method=method, held_out=windows, evaluate_every=4)
    assert (found.losses, found.measurements) == (expected.losses, expected.measurements)
    assert [module.training for each in (model, dense) for module in each.modules()] == modes


def test_what_healing_hangs_into_a_model_is_taken_off(pruned, windows):
    model, dense = pruned
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    with torch.no_grad():
        dense.get_input_embeddings().weight[:] = torch.nan
    with pytest.raises(TrainingDiverged):
        heal(model, dense, windows, method="lora", gradient_checkpointing=True, stability_level=3)
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == kinds
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, nn.Module))
