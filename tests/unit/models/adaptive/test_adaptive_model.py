import json
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from sentinel.errors import CheckpointInvalid
from sentinel.models.adaptive.adaptive_model import AdaptiveModel, GateKind
from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import UNITS, make_loaded

KINDS = get_args(GateKind)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def gated(name="llama-gqa", **options):
    model, _, family = make_loaded(name)
    return AdaptiveModel(model.requires_grad_(False), family, **options)


def hooks(model):
    return [hook for m in model.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]


def test_open_gates_change_no_bit(variant, kind, tokens):
    """Law 1 for every kind of gate; learnable ones come out of the formula as ones."""
    adaptive = gated(variant, units=UNITS, kind=kind)
    untouched = adaptive.model(tokens).logits
    with adaptive:
        assert torch.equal(adaptive.model(tokens).logits, untouched)
    assert not hooks(adaptive.model)


@pytest.mark.parametrize("unit", UNITS)
def test_a_closed_gate_is_a_removed_group(variant, kind, unit, tokens):
    """Law 2: max |Δlogit| of what is cut against what is closed."""
    adaptive = gated(variant, units=[unit], kind=kind)
    adaptive.set(unit, 1, {0: 0, 2: 0})
    with adaptive:
        closed = adaptive.model(tokens).logits
    apply_removal(adaptive.model, adaptive.family, {unit: {1: [0, 2]}})
    cut = adaptive.model(tokens).logits
    torch.testing.assert_close(closed, cut, atol=1e-5 * max(1, float(cut.abs().max())), rtol=0)


@pytest.mark.parametrize("kind", ["soft", "learnable"])
def test_a_gate_between_scales_its_group(kind, tokens):
    adaptive = gated(kind=kind)
    adaptive.set("attention", 0, {1: 0.25})
    assert adaptive.gate("attention", 0, 1) == pytest.approx(0.25, abs=1e-6)
    untouched = adaptive.model(tokens).logits
    with adaptive:
        between = adaptive.model(tokens).logits
    width = adaptive.sites[0].group_width
    with torch.no_grad():
        adaptive.sites[0].output.weight[:, width : 2 * width] *= 0.25
    torch.testing.assert_close(between, adaptive.model(tokens).logits, atol=1e-5, rtol=0)
    assert not torch.equal(between, untouched)


@pytest.mark.parametrize(
    ("kind", "layer", "gates", "message"),
    [
        ("hard", 0, {0: 0.5}, "0 or 1"),
        ("soft", 0, {0: 1.5}, "between 0 and 1"),
        ("learnable", 0, {1: -0.1}, "between 0 and 1"),
        ("soft", 0, {0: 0.5, 4: 1}, "none of \\[4\\]"),
        ("soft", 3, {0: 0.5}, "no attention gates in layer 3"),
    ],
)
def test_what_a_gate_cannot_be_is_refused_and_nothing_set(kind, layer, gates, message):
    adaptive = gated(kind=kind)
    with pytest.raises(ValueError, match=message):
        adaptive.set("attention", layer, gates)
    assert all((values == 1).all() for values in adaptive.values())


def test_only_learnable_gates_are_drawn_and_learnt():
    adaptive = gated(kind="soft")
    with pytest.raises(RuntimeError, match="are soft"), adaptive.sampled(torch.Generator()):
        pass
    with pytest.raises(RuntimeError, match="are soft"):
        adaptive.expected_open("attention")
    with pytest.raises(RuntimeError, match="are soft"):
        adaptive.learn(torch.ones(()), open_share=0.5, rate=0.1)


def test_hooks_are_gone_after_an_error_and_twice_is_refused(tokens):
    adaptive = gated()
    with pytest.raises(ZeroDivisionError), adaptive:
        1 / 0  # noqa: B018 - the error is the point
    assert not adaptive.attached
    assert not hooks(adaptive.model)
    adaptive.detach()
    adaptive.attach()
    assert adaptive.attached
    with pytest.raises(RuntimeError, match="already"):
        adaptive.attach()
    adaptive.detach()
    assert not hooks(adaptive.model)


def test_a_layer_without_groups_has_no_gates(tokens):
    model, _, family = make_loaded("llama-gqa")
    family.keep_groups(model, 1, "attention", [])
    adaptive = AdaptiveModel(model, family)
    assert [site.layer for site in adaptive.sites] == [0, 2]
    untouched = model(tokens).logits
    with adaptive:
        assert torch.equal(model(tokens).logits, untouched)


def test_draws_are_per_sample_and_repeat_with_the_seed(tokens):
    adaptive = gated(kind="learnable")
    for layer in range(3):
        adaptive.set("attention", layer, dict.fromkeys(range(4), 0.5))
    same = tokens[:1].expand(3, -1)

    def drawn():
        with adaptive, adaptive.sampled(torch.Generator().manual_seed(3)):
            return [adaptive.model(same).logits for _ in range(2)]

    first, second = drawn()
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert all(map(torch.equal, (first, second), drawn()))
    with adaptive:  # outside, nothing is left to chance
        assert torch.equal(adaptive.model(same).logits, adaptive.model(same).logits)


def test_every_sample_has_gates_of_its_own_whatever_else_the_pass_is_told(tokens):
    adaptive = gated(kind="learnable")
    same, positions = tokens[:1].expand(2, -1), torch.arange(tokens.shape[1])[None]
    adaptive.set("attention", 0, dict.fromkeys(range(4), 0.5))
    with adaptive, adaptive.sampled(torch.Generator().manual_seed(3)):
        for text in ({"input_ids": same}, {"inputs_embeds": adaptive.model.get_input_embeddings()(same)}):
            first, second = adaptive.model(position_ids=positions, **text).logits
            assert not torch.equal(first, second)


def test_expected_open_is_what_draws_come_to_in_the_mean(tokens):
    adaptive = gated(kind="learnable")
    adaptive.set("attention", 0, {0: 0.0, 1: 0.5, 2: 0.9})
    seen = []
    with adaptive, adaptive.sampled(torch.Generator().manual_seed(0)):
        for _ in range(3):
            adaptive.model(tokens[:1, :2].expand(400, -1))
            seen.append(sum(float((values != 0).float().mean(0).sum()) for values in adaptive._gates.values))
    expected = adaptive.expected_open("attention")
    assert sum(seen) / 3 == pytest.approx(expected.item(), rel=0.02)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(expected, adaptive.log_alphas))


def test_a_unit_without_gates_is_named():
    with pytest.raises(ValueError, match="no mlp gates"):
        gated(units=["attention"], kind="learnable").expected_open("mlp")


def test_learning_keeps_open_what_the_loss_needs(tokens):
    """Two groups of one layer made useless: their output slices are zero."""
    adaptive = gated(kind="learnable")
    width = adaptive.sites[1].group_width
    with torch.no_grad():
        adaptive.sites[1].output.weight[:, : 2 * width] = 0
        dense = adaptive.model(tokens).logits.log_softmax(-1)
    weights = {name: value.clone() for name, value in adaptive.model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        with adaptive, adaptive.sampled(generator):
            loss = (adaptive.model(tokens).logits.log_softmax(-1) - dense).square().mean()
            adaptive.learn(loss, open_share=10 / 12, rate=0.3)
    order = torch.cat(adaptive.log_alphas).argsort()[:2]
    assert sorted(order.tolist()) == [4, 5]
    assert adaptive.expected_open("attention").item() == pytest.approx(10, abs=1e-3)
    assert all(torch.equal(value, weights[name]) for name, value in adaptive.model.named_parameters())


def test_a_saved_state_comes_back_to_the_bit(kind, tmp_path, tokens):
    adaptive = gated(units=UNITS, kind=kind)
    adaptive.set("attention", 2, {3: 0})
    adaptive.set("mlp", 0, {5: 0})
    if kind != "hard":
        adaptive.set("attention", 1, {0: 0.3})
    adaptive.save(tmp_path)
    again = gated(units=UNITS, kind=kind)
    again.restore(tmp_path)
    with adaptive, again:
        assert torch.equal(again.model(tokens).logits, adaptive.model(tokens).logits)
    assert all(map(torch.equal, again.values(), adaptive.values()))


def test_a_state_of_others_is_refused(tmp_path):
    gated(kind="soft").save(tmp_path)
    for other in (gated(kind="hard"), gated(kind="soft", units=UNITS), gated("gpt2", units=["mlp"])):
        with pytest.raises(CheckpointInvalid, match="not those of this model"):
            other.restore(tmp_path)
    (tmp_path / "gates.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointInvalid, match="Cannot read"):
        gated(kind="soft").restore(tmp_path)
    (tmp_path / "gates.json").unlink()
    with pytest.raises(CheckpointInvalid, match="Cannot read"):
        gated(kind="soft").restore(tmp_path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("hard", 0.5), ("hard", float("nan")), ("soft", 7.0), ("soft", float("nan")), ("learnable", float("nan"))],
)
def test_values_that_such_gates_cannot_have_are_refused(tmp_path, kind, value):
    gated(kind=kind).save(tmp_path)
    tensors = load_file(tmp_path / "gates.safetensors")
    tensors["attention.1"][0] = value
    save_file(tensors, tmp_path / "gates.safetensors")
    adaptive = gated(kind=kind)
    with pytest.raises(CheckpointInvalid, match="damaged"):
        adaptive.restore(tmp_path)
    assert all((values == 1).all() for values in adaptive.values())


def test_generate_gives_the_same_tokens_with_and_without_cache(tokens):
    adaptive = gated(kind="learnable")
    adaptive.set("attention", 1, {2: 0, 3: 0.4})
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    with adaptive:
        assert torch.equal(
            adaptive.model.generate(tokens, **options), adaptive.model.generate(tokens, use_cache=False, **options)
        )
