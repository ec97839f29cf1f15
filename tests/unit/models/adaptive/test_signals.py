"""Each signal against its definition, on models of two families; the model is left as it was."""

from typing import get_args

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.gates import Gates
from sentinel.models.adaptive.signals import WINDOWS, SignalName, measure_signals, signals_of
from sentinel.models.families.base import output_weight
from sentinel.models.hooks import inputs_of
from sentinel.result import CycleRecord
from sentinel.utils.metrics import next_token_losses
from tests.unit.models.conftest import make_loaded


@pytest.fixture(params=["gpt2", "llama-gqa"])
def loaded(request):
    model, _, family = make_loaded(request.param)
    return model.requires_grad_(False), family


def mean_loss(model, tokens):
    return next_token_losses(model(tokens).logits, tokens).mean()


def test_signals_equal_their_definitions(loaded, tokens):
    model, family = loaded
    signals = measure_signals(model, family, tokens)
    sites = family.sites(model, ["attention"])
    queries = family.queries_per_kv_head(model.config)
    model.set_attn_implementation("eager")
    maps = model(tokens, output_attentions=True).attentions
    for index, site in enumerate(sites):
        weight = output_weight(site).detach()
        seen = []
        with inputs_of(site.output, seen.append):
            model(tokens)
        slices = [slice(h * site.group_width, (h + 1) * site.group_width) for h in range(site.num_groups)]
        energies = torch.tensor([float((seen[0][..., s] @ weight[:, s].T).square().sum()) for s in slices])
        expected = energies / energies.sum()
        torch.testing.assert_close(torch.tensor(signals.utilisation[index]), expected, rtol=1e-4, atol=1e-7)
        p = maps[index].double()
        rows = -(p * torch.where(p > 0, p, 1).log()).sum(-1).mean((0, 2)).view(-1, queries).mean(1)
        torch.testing.assert_close(torch.tensor(signals.entropy[index]).double(), rows, rtol=1e-4, atol=1e-7)
        parameter = site.output.weight.requires_grad_()
        (gradient,) = torch.autograd.grad(mean_loss(model, tokens), parameter)
        parameter.requires_grad_(False)
        gradient = gradient.T if isinstance(site.output, Conv1D) else gradient
        norms = torch.stack([gradient[:, s].norm() for s in slices])
        torch.testing.assert_close(torch.tensor(signals.gradient_norm[index]), norms, rtol=1e-3, atol=1e-7)
        assert signals.gate[index] == (1.0,) * site.num_groups


def test_importance_is_the_slope_of_the_loss_in_the_gate(loaded, tokens):
    model, family = loaded
    signals = measure_signals(model, family, tokens)
    slopes = []
    for window in tokens.split(1):
        with Gates(family.sites(model, ["attention"])) as gates:
            losses = []
            for value in (1.01, 0.99):
                values = torch.ones(gates.sites[1].num_groups)
                values[2] = value
                gates.set(1, values)
                losses.append(float(mean_loss(model.double(), window)))
        slopes.append(abs(losses[0] - losses[1]) / 0.02)
    assert signals.importance[1][2] == pytest.approx(sum(slopes) / len(slopes), rel=2e-2)


def test_gates_in_force_are_part_of_what_is_measured(loaded, tokens):
    model, family = loaded
    whole = measure_signals(model, family, tokens)
    adaptive = AdaptiveModel(model, family)
    adaptive.set("attention", 0, {0: 0, 1: 0.5})
    with adaptive:
        gated = signals_of(adaptive, tokens)
    assert gated.gate[0] == (0, 0.5, 1, 1)
    assert gated.gate[1] == (1, 1, 1, 1)
    assert gated.utilisation[0][0] == gated.importance[0][0] == gated.gradient_norm[0][0] == 0
    ratio = gated.utilisation[0][1] / gated.utilisation[0][2]
    assert ratio == pytest.approx(0.25 * whole.utilisation[0][1] / whole.utilisation[0][2], rel=1e-4)
    with pytest.raises(RuntimeError, match="not in force"):
        signals_of(adaptive, tokens)


def test_a_layer_that_is_closed_or_empty_has_no_share_to_divide(loaded, tokens):
    model, family = loaded
    family.keep_groups(model, 1, "attention", [])
    adaptive = AdaptiveModel(model, family)
    adaptive.set("attention", 0, dict.fromkeys(range(4), 0.0))
    with adaptive:
        signals = signals_of(adaptive, tokens)
    assert signals.utilisation[0] == (0, 0, 0, 0)
    assert list(signals.importance) == [0, 2]
    assert sum(signals.utilisation[2]) == pytest.approx(1)


def test_without_any_attention_there_is_nothing_to_measure(loaded, tokens):
    model, family = loaded
    for layer in range(3):
        family.keep_groups(model, layer, "attention", [])
    assert measure_signals(model, family, tokens).by_name() == {name: {} for name in get_args(SignalName)}


def test_every_family_is_measured(variant, tokens):
    model, _, family = make_loaded(variant)
    signals = measure_signals(model, family, tokens)
    for rows in (signals.importance, signals.entropy, signals.utilisation, signals.gradient_norm):
        assert [len(row) for row in rows.values()] == family.counts(model, "attention")
        assert all(0 < value < float("inf") for row in rows.values() for value in row)


def test_measuring_leaves_the_model_as_it_was(loaded, tokens):
    model, family = loaded
    before = model(tokens).logits
    measure_signals(model, family, tokens)
    assert torch.equal(model(tokens).logits, before)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_weights_that_are_being_learnt_get_no_gradient(loaded, tokens):
    model, family = loaded
    frozen = measure_signals(model, family, tokens)
    model.requires_grad_(True)
    assert measure_signals(model, family, tokens) == frozen
    assert all(parameter.grad is None for parameter in model.parameters())


def test_few_windows_are_looked_at_and_a_record_takes_what_was_measured(loaded, tokens):
    model, family = loaded
    many = tokens.repeat(6, 1)
    signals = measure_signals(model, family, many)
    assert signals == measure_signals(model, family, many[:WINDOWS])
    named = signals.by_name()
    assert named["importance"][2][3] == signals.importance[2][3]
    fields = {"cycle": 1, "sparsity": {}, "cost": {"kind": "sparsity", "goal": 0, "predicted": 0, "measured": 0}}
    rest = {"removed": {}, "evaluations": 0, "loss_before_healing": 1, "loss": 1, "compensation": []}
    record = CycleRecord.model_validate({**fields, **rest, "signals": named})
    assert CycleRecord.model_validate_json(record.model_dump_json()).signals == named
