"""What each stability level does about numbers that are not finite, jumps of the loss, and too little memory."""

import copy
from itertools import islice

import pytest
import torch

from sentinel.errors import OutOfMemory, TrainingDiverged
from sentinel.models.evaluation import mean_loss
from sentinel.pruning.fine_tuning.batches import Batches
from tests.unit.pruning.fine_tuning.healing import heal, ruin, same_weights

PLAIN = {"loss": "cross_entropy", "steps": 30, "save_every": 5}


class Poison:
    """Spoils the output of the second layer's MLP whenever the model is trained at one of some calls."""

    def __init__(self, model, family, calls, value, *, only_in=None):
        self.calls, self.value, self.only_in, self.count = calls, value, only_in, 0
        self.module = family.parts(model, 1, "mlp")[-1].module
        self.name = next(name for name, module in model.named_modules() if module is self.module)
        self.module.register_forward_hook(self)

    def __call__(self, _module, _inputs, output):
        if not torch.is_grad_enabled():
            return output * self.value if self.count in self.calls else output  # the inspection, afterwards
        self.count += 1
        spoils = self.count in self.calls and self.only_in in (None, output.dtype)
        return output * self.value if spoils else output


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_level_0_stops_at_once_and_names_the_layer(pruned, family, windows, value):
    model, dense = pruned
    poison = Poison(model, family, {4}, value)
    with pytest.raises(TrainingDiverged, match=r"Step 4 of 30: the loss was nan.*first output.*") as raised:
        heal(model, dense, windows, **PLAIN, stability_level=0)
    assert poison.name in raised.value.message
    assert "stability_level" in raised.value.next_step
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_step_that_is_not_finite_is_left_out(pruned, family, windows, value, level):
    model, dense = pruned
    poison = Poison(model, family, {4}, value)
    recorder, healed = heal(model, dense, windows, **PLAIN, stability_level=level)
    assert healed.left_out == 1
    assert sorted(set(range(1, 31)) - recorder.losses.keys()) == [4]
    (notice,) = recorder.notices
    assert "Step 4 of 30" in notice
    assert "left out" in notice
    assert (poison.name in notice) == (level == 3)
    assert recorder.losses[30] < recorder.losses[1]


def test_a_layer_too_large_for_float16_alone_is_named(pruned, family, windows):
    model, dense = pruned
    projection = family.parts(model, 1, "mlp")[-1].module
    projection.register_forward_hook(lambda _module, _inputs, output: output * 1e6)
    name = next(name for name, module in model.named_modules() if module is projection)
    with pytest.raises(TrainingDiverged, match=f"the first output that is not finite is that of {name}\\."):
        heal(model, dense, windows, **PLAIN, stability_level=0, precision="float16")


def test_level_1_gives_up_when_nothing_is_finite_any_more(pruned, family, windows):
    model, dense = pruned
    Poison(model, family, range(4, 100), torch.nan)
    with pytest.raises(TrainingDiverged, match=r"Step 9 of 30.*6 step\(s\) had been left out") as raised:
        heal(model, dense, windows, **PLAIN, stability_level=1)
    assert raised.value.code == "training_diverged"


def test_level_0_has_no_clipping_and_level_1_has(pruned, windows):
    model, dense = pruned
    twin, free = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"loss": "cross_entropy", "gradient_clipping": 1e-3}
    heal(model, dense, windows, **settings, stability_level=1)
    heal(twin, dense, windows, **settings, stability_level=0)
    heal(free, dense, windows, **settings | {"gradient_clipping": 1e9}, stability_level=1)
    assert not same_weights(model, twin)
    assert same_weights(free, twin)


def to_nan(weight):
    weight.fill_(torch.nan)


def broken_at(step, model, how):
    def hurt(now):
        if now == step:
            with torch.no_grad():
                how(model.get_output_embeddings().weight)

    return hurt


@pytest.mark.parametrize("how", [ruin, to_nan], ids=["jump", "not finite"])
def test_weights_that_went_bad_are_put_back_at_half_the_rate(pruned, windows, how):
    model, dense = pruned
    alone, expected = copy.deepcopy(model), copy.deepcopy(model)
    recorder, healed = heal(model, dense, windows, on_step=broken_at(12, model, how), **PLAIN)
    assert (healed.left_out, healed.put_back) == (2, 1)
    assert sorted(set(range(1, 31)) - recorder.losses.keys()) == [13, 14]
    assert "left out" in recorder.notices[0]
    assert "last good weights are back" in recorder.notices[1]
    heal(expected, dense, windows, **PLAIN)
    start, healed_loss, undisturbed = (mean_loss(m, windows) for m in (alone, model, expected))
    assert healed_loss < (start + undisturbed) / 2


def test_a_measurement_right_behind_a_bad_step_is_got_over(pruned, windows):
    model, dense = pruned
    settings = {**PLAIN, "held_out": windows[4:], "evaluate_every": 4}
    recorder, healed = heal(model, dense, windows[:4], on_step=broken_at(12, model, to_nan), **settings)
    assert (healed.left_out, healed.put_back) == (2, 1)
    assert list(recorder.measurements) == [4, 8, 16, 20, 24, 28, 30]
    assert "Step 12 of 30: on the held-out windows the loss is not finite" in recorder.notices[0]
    assert "last good weights are back" in recorder.notices[2]


def test_a_last_measurement_that_is_not_finite_leaves_the_best_weights(pruned, windows):
    model, dense = pruned
    settings = {**PLAIN, "held_out": windows[4:], "evaluate_every": 10}
    recorder, healed = heal(model, dense, windows[:4], on_step=broken_at(30, model, to_nan), **settings)
    assert list(recorder.measurements) == [10, 20]
    assert healed.held_out_loss == min(recorder.measurements.values()) == mean_loss(model, windows[4:])


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"evaluate_every": 4, "stability_level": 0}, 12),
        ({"evaluate_every": 4, "stability_level": 1}, 18),
        ({"evaluate_every": 12, "patience": 1}, 12),
        ({"evaluate_every": 30, "steps": 12}, 12),
    ],
    ids=["at level 0", "for good", "without patience", "at the end"],
)
def test_a_measurement_that_cannot_be_got_over_tells_its_step(pruned, windows, settings, step):
    model, dense = pruned
    hurt = broken_at(12, model, to_nan)
    with pytest.raises(TrainingDiverged, match=rf"Step {step} of \d+: .*parameter\(s\) are not finite"):
        heal(model, dense, windows[:4], held_out=windows[4:], on_step=hurt, **{**PLAIN, **settings})


def test_the_rate_is_half_from_the_next_step_on(pruned, windows, rates):
    model, dense = pruned
    settings = {**PLAIN, "warmup_fraction": 0, "schedule": "constant", "learning_rate": 1e-3}
    _, healed = heal(model, dense, windows, on_step=broken_at(12, model, ruin), **settings)
    assert healed.put_back == 1
    assert rates == [1e-3] * 12 + [5e-4] * 16


def test_level_1_learns_from_whatever_is_finite(pruned, windows):
    model, dense = pruned
    hurt = broken_at(12, model, ruin)
    recorder, healed = heal(model, dense, windows, on_step=hurt, stability_level=1, **PLAIN)
    assert (healed.left_out, healed.put_back) == (0, 0)
    assert recorder.losses[13] > 1.5 * recorder.losses[12]


def test_one_batch_out_of_the_ordinary_is_left_out_and_nothing_is_put_back(pruned):
    """A document of another kind: its loss jumps, that of the next batch does not."""
    model, dense = pruned
    windows = torch.tensor([1, 2, 3]).repeat(60, 8)
    strange = next(islice(Batches(60, 1, seed=1), 39, None))
    windows[strange] = torch.randint(4, 61, (24,), generator=torch.Generator().manual_seed(2))
    recorder, healed = heal(model, dense, windows, loss="cross_entropy", steps=60, batch_tokens=24)
    assert (healed.left_out, healed.put_back) == (1, 0)
    assert "Step 40 of 60: the loss jumped" in recorder.notices[0]


def test_what_cannot_be_got_over_ends_with_a_next_step(pruned, windows):
    model, dense = pruned

    def hurt(step):
        if step >= 12:
            with torch.no_grad():
                ruin(model.get_output_embeddings().weight)

    with pytest.raises(TrainingDiverged, match="the weights put back 6 times"):
        heal(model, dense, windows, on_step=hurt, loss="cross_entropy", steps=100)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_step_of_a_smaller_type_is_repeated_in_float32(pruned, family, windows, precision):
    model, dense = pruned
    Poison(model, family, {4}, torch.inf, only_in=getattr(torch, precision))
    recorder, healed = heal(model, dense, windows, **PLAIN, stability_level=3, precision=precision)
    assert healed.left_out == 0
    assert list(recorder.losses) == list(range(1, 31))
    assert recorder.notices == ["Step 4 of 30: A step was not finite and was repeated in float32."]


def test_outputs_too_large_for_float16_do_not_use_up_the_scale_of_the_loss(pruned, family, windows):
    """Every step is repeated; halved each time, the scale would be zero in the end."""
    model, dense = pruned
    twin = copy.deepcopy(model)
    many = {"steps": 150, "loss": "cross_entropy", "stability_level": 3}
    expected, _ = heal(twin, dense, windows, **many)
    Poison(model, family, range(1, 400), torch.inf, only_in=torch.float16)
    recorder, _ = heal(model, dense, windows, **many, precision="float16")
    assert len(recorder.notices) == 150
    assert recorder.losses == expected.losses


def test_weights_of_a_smaller_type_are_in_float32_for_that_step_only(pruned, family, windows):
    model, dense = pruned
    model.bfloat16()
    Poison(model, family, {4}, torch.inf, only_in=torch.bfloat16)
    recorder, healed = heal(model, dense, windows, **PLAIN, stability_level=3)
    assert (healed.left_out, len(recorder.notices)) == (0, 1)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("how", [ruin, to_nan], ids=["jump", "not finite"])
def test_weights_that_go_bad_where_they_would_be_kept_are_not(pruned, windows, how):
    """What is put back has been tried on a batch first."""
    model, dense = pruned
    _, healed = heal(model, dense, windows, on_step=broken_at(10, model, how), **PLAIN)
    assert (healed.left_out, healed.put_back) == (2, 1)


def test_level_3_finds_weights_that_are_not_finite_though_nothing_reads_them(pruned, windows):
    model, dense = pruned
    windows = windows.where(windows != 60, 1)
    unread = model.transformer.wpe.weight if hasattr(model, "transformer") else model.model.embed_tokens.weight

    def hurt(step):
        if step == 5:
            with torch.no_grad():
                unread[-1] = torch.nan

    with pytest.raises(TrainingDiverged, match=r"Step 5 of 30: .*(wpe|embed_tokens).weight is not finite"):
        heal(model, dense, windows, on_step=hurt, **PLAIN, stability_level=3)


class LittleMemory:
    """Has room for so many windows at a time."""

    def __init__(self, model, most):
        self.most, self.sizes = most, []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, _module, _arguments, kwargs):
        self.sizes.append(len(kwargs["input_ids"]))
        if self.sizes[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more.")


def test_a_micro_batch_that_does_not_fit_is_halved_and_the_gradient_stays(pruned, windows):
    model, dense = pruned
    twin = copy.deepcopy(model)
    expected, _ = heal(twin, dense, windows, batch_tokens=6 * 24)
    memory = LittleMemory(model, 2)
    recorder, _ = heal(model, dense, windows, batch_tokens=6 * 24, micro_batch_tokens=6 * 24)
    assert memory.sizes[:6] == [6, 3, 2, 2, 2, 2]
    assert recorder.losses == pytest.approx(expected.losses, rel=1e-3)
    assert [notice[-22:] for notice in recorder.notices] == ["3 window(s) at a time.", "2 window(s) at a time."]


@pytest.mark.parametrize(("level", "most"), [(1, 2), (2, 0)])
def test_what_does_not_fit_fails_with_what_to_do(pruned, windows, level, most):
    model, dense = pruned
    LittleMemory(model, most)
    with pytest.raises(OutOfMemory, match=r"out of memory at \d window") as raised:
        heal(model, dense, windows, stability_level=level)
    assert "micro_batch_tokens" in raised.value.next_step


def test_measurements_take_no_more_at_once_than_a_micro_batch(pruned, windows):
    model, dense = pruned
    memory = LittleMemory(model, 2)
    heal(model, dense, windows, held_out=windows, evaluate_every=6, steps=6, micro_batch_tokens=48)
    assert memory.sizes[-3:] == [2, 2, 2]


def test_a_measurement_that_does_not_fit_fails_with_what_to_do(pruned, windows):
    model, dense = pruned
    LittleMemory(model, 3)
    with pytest.raises(OutOfMemory, match="Measuring the held-out windows") as raised:
        heal(model, dense, windows, held_out=windows, evaluate_every=6)
    assert "micro_batch_tokens" in raised.value.next_step


def test_other_errors_are_nobody_elses(pruned, windows):
    model, dense = pruned

    def fail(*_):
        raise RuntimeError("something else")

    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="something else"):
        heal(model, dense, windows)
