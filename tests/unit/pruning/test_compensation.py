"""Law 5 on models: every repair lowers its projection's error, and the records are what can be measured."""

import copy
from contextlib import ExitStack
from typing import get_args

import pytest
import torch

from sentinel.models.evaluation import compare
from sentinel.models.families import family_of
from sentinel.models.families.base import UNITS, output_bias, output_weight
from sentinel.models.hooks import inputs_of, outputs_of
from sentinel.prune_spec import CompensationName
from sentinel.pruning.repair import cut_and_compensate
from tests.unit.models.conftest import CONFIGS, make_model
from tests.unit.pruning.tiny import CUT, calibrate, silence

CUTS = {
    "attention": {"attention": CUT["attention"]},
    "mlp": {"mlp": CUT["mlp"]},
    "both": CUT,
    "whole": {"attention": {1: range(4)}, "mlp": {0: range(8)}},
}
KINDS = get_args(CompensationName)


@pytest.fixture(params=CUTS)
def cut(request):
    return CUTS[request.param]


def cut_copy(model, windows, cut, compensation):
    copied = copy.deepcopy(model)
    return copied, cut_and_compensate(calibrate(copied, windows), cut, compensation=compensation)


@torch.no_grad()
def seen_at(modules, model, windows, watch):
    """What goes into (or comes out of) modules, (tokens, features) each, float64."""
    seen = [[] for _ in modules]
    with ExitStack() as stack:
        for module, values in zip(modules, seen, strict=True):
            stack.enter_context(watch(module, values.append))
        model(input_ids=windows)
    return [torch.cat(values).flatten(0, -2).double() for values in seen]


@torch.no_grad()
def output_of(module, model, windows):
    with outputs_of(module) as seen:
        model(input_ids=windows)
    return seen[0].flatten(0, -2).double()


@pytest.mark.parametrize("compensation", KINDS)
def test_no_repair_raises_the_error_of_its_projection(model, windows, cut, compensation):
    _, records = cut_copy(model, windows, cut, compensation)
    assert records
    assert all(0 <= record.error_after <= record.error_before for record in records)
    assert any(record.error_after < 0.9 * record.error_before for record in records)


def test_own_outputs_are_refitted_behind_the_pruned_prefix(model, family, windows, cut):
    """Each record equals its projection's error, measured by definition behind everything cut before it."""
    pruned, records = cut_copy(model, windows, cut, "least_squares")
    assert [(r.layer, r.unit) for r in records] == [(n, u) for n in range(3) for u in UNITS if cut.get(u, {}).get(n)]
    for record in records:
        site = family.site(hybrid(model, pruned, family, record), record.layer, record.unit)
        mine = family.site(pruned, record.layer, record.unit)
        (x,) = seen_at([site.output], hybrid.model, windows, inputs_of)
        gone = cut[record.unit][record.layer]
        kept = torch.tensor([group not in gone for group in range(site.num_groups)])
        x_kept = x[:, kept.repeat_interleave(site.group_width)]
        target = x @ output_weight(site).double().T
        shift = 0 if output_bias(site) is None else (output_bias(mine) - output_bias(site)).double()
        after = target - x_kept @ output_weight(mine).double().T - shift
        before = target - x_kept @ output_weight(site).double()[:, kept.repeat_interleave(site.group_width)].T
        energy = target.square().sum()
        assert float(after.square().sum() / energy) == pytest.approx(record.error_after, rel=1e-2, abs=1e-9)
        assert float(before.square().sum() / energy) == pytest.approx(record.error_before, rel=1e-3)


def hybrid(dense, pruned, family, record):
    """The dense model with everything that is computed before a record's projection taken from the pruned one."""
    hybrid.model = copy.deepcopy(dense)
    blocks = hybrid.model.transformer.h if hasattr(dense, "transformer") else hybrid.model.model.layers
    for layer in range(record.layer):
        blocks[layer] = copy.deepcopy(family.layers(pruned)[layer])
    if record.unit == "mlp":
        name = "attn" if hasattr(dense, "transformer") else "self_attn"
        setattr(blocks[record.layer], name, copy.deepcopy(getattr(family.layers(pruned)[record.layer], name)))
    return hybrid.model


def stream_after(model, family, layer, unit, windows):
    """The residual stream behind a unit of a layer, (tokens, hidden)."""
    block = family.layers(model)[layer]
    if unit == "attention":
        norm = block.ln_2 if hasattr(block, "ln_2") else block.post_attention_layernorm
        return seen_at([norm], model, windows, inputs_of)[0]
    return output_of(block, model, windows)


def test_the_residual_stream_is_what_is_brought_back(model, family, windows, cut):
    """Errors are the distance between the two models' streams behind each unit, in units of the target's energy."""
    pruned, records = cut_copy(model, windows, cut, "residual_least_squares")
    first = min(layer for layers in cut.values() for layer in layers)
    assert [(r.layer, r.unit) for r in records] == [(n, u) for n in range(first, 3) for u in UNITS]
    for record in records:
        place = record.layer, record.unit, windows
        wanted, found = stream_after(model, family, *place), stream_after(pruned, family, *place)
        output = output_of(family.site(pruned, record.layer, record.unit).output, pruned, windows)
        target = wanted - (found - output)
        error = (wanted - found).square().sum() / target.square().sum()
        assert float(error) == pytest.approx(record.error_after, rel=1e-2, abs=1e-9)


@pytest.mark.parametrize("compensation", KINDS)
def test_a_repair_brings_predictions_back(model, windows, compensation):
    plain, _ = cut_copy(model, windows, CUT, None)
    repaired, _ = cut_copy(model, windows, CUT, compensation)
    assert compare(model, repaired, windows).kl_to_dense < 0.8 * compare(model, plain, windows).kl_to_dense


@pytest.mark.parametrize("compensation", KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_layer_whose_groups_are_silent_is_no_obstacle(model, family, windows, compensation, unit):
    silence(model, family, 1, unit)
    plain, _ = cut_copy(model, windows, CUT, None)
    repaired, records = cut_copy(model, windows, CUT, compensation)
    assert all(0 <= record.error_after <= record.error_before for record in records)
    assert compare(model, repaired, windows).kl_to_dense < 0.8 * compare(model, plain, windows).kl_to_dense


@torch.no_grad()
def layer_output(model, layer, windows):
    """What a layer of any family makes of the windows."""
    with outputs_of(family_of(model.config.model_type).layers(model)[layer]) as seen:
        model(input_ids=windows, use_cache=False)
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_in_every_family_each_repair_brings_its_layer_nearer(name):
    """Several windows per batch; the residual stream is nearer where that is the aim than where outputs are."""
    windows = torch.randint(1, 31, (24, 9), generator=torch.Generator().manual_seed(3))
    dense = make_model(name).requires_grad_(False)
    heads = calibrate(dense, windows).sites()[0].num_groups
    cut = {"attention": {1: range(heads // 2)}, "mlp": {1: range(16)}}
    wanted = layer_output(dense, 1, windows)
    errors = [
        float((layer_output(cut_copy(dense, windows, cut, kind)[0], 1, windows) - wanted).square().sum())
        for kind in (None, "least_squares", "residual_least_squares", "reconstruction")
    ]
    none, least_squares, residual, reconstruction = errors
    assert least_squares < none
    assert residual <= 1.02 * least_squares
    assert reconstruction <= 1.02 * least_squares


@pytest.mark.parametrize("compensation", KINDS)
def test_nothing_cut_leaves_every_weight_alone(model, windows, compensation):
    same, records = cut_copy(model, windows, {}, compensation)
    assert records == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("compensation", KINDS)
def test_layers_before_the_first_cut_stay_as_they_were(model, family, windows, compensation):
    pruned, _ = cut_copy(model, windows, {"mlp": {2: range(8)}}, compensation)
    for layer in (0, 1):
        pairs = zip(family.layers(model)[layer].parameters(), family.layers(pruned)[layer].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("compensation", KINDS)
def test_a_repair_repeats_bit_for_bit_and_leaves_weights_frozen(model, windows, compensation):
    one, other = (cut_copy(model, windows, CUT, compensation)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in one.parameters())
