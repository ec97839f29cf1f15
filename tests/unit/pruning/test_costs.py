"""What a cut is predicted to save is what it saves; latency apart, which is measured."""

import numpy as np
import pytest
from transformers import Olmo2Config, Olmo2ForCausalLM

from sentinel.errors import SpecInvalid
from sentinel.models.evaluation import count_parameters, kv_bytes_per_token
from sentinel.pruning.costs import LATENCY_POINTS, cost_of, flops_per_token
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import STRATEGIES
from tests.unit.pruning.tiny import VOCABULARY, calibrate, prune

COUNTED = ("sparsity", "parameters", "flops", "kv_bytes")


def totals(model, windows):
    return {kind: cost_of(kind, calibrate(model, windows)).total for kind in COUNTED}


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_every_number_of_groups_saves_what_it_was_said_to(model, family, windows, kind, unit):
    """Down to nothing, one group after the other."""
    calibration, site = calibrate(model, windows), family.site(model, 1, unit)
    cost = cost_of(kind, calibration)
    left = [*range(site.num_groups - 1, 0, -1 if unit == "attention" else -13), 0]
    predicted = cost.savings(site, [site.num_groups - count for count in left])
    for count, saving in zip(left, predicted, strict=True):
        family.keep_groups(model, 1, unit, range(count))
        assert cost.total - cost_of(kind, calibration).total == saving


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_the_last_group_takes_what_was_there_for_all(windows, kind):
    """OLMo 2 computes the queries and keys of all groups until none is left."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Olmo2ForCausalLM(Olmo2Config(vocab_size=VOCABULARY, pad_token_id=None, eos_token_id=0, **sizes))
    calibration = calibrate(model, windows, "attention")
    site, cost = calibration.sites()[1], cost_of(kind, calibration)
    predicted = cost.savings(site, [1, 4])
    for left, saving in zip((3, 0), predicted, strict=True):
        calibration.family.keep_groups(model, 1, "attention", range(left))
        assert cost.total - cost_of(kind, calibration).total == saving


def test_totals_are_those_that_results_report(model, family, windows):
    found = totals(model, windows)
    assert found["parameters"] == count_parameters(model)
    assert found["kv_bytes"] == kv_bytes_per_token(model, family)
    assert found["sparsity"] == sum(sum(family.counts(model, unit)) for unit in ("attention", "mlp"))


def test_flops_are_two_per_weight_of_every_product_and_the_attention_maps(model, family, windows):
    length = windows.shape[1]
    if model.config.model_type == "gpt2":
        per_layer = 24 * 72 + 24 * 24 + 2 * 24 * 40
        queries, output = 24, 24 * 61
    else:
        per_layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
        queries, output = 32, 32 * 61
    # Scores and their sum of values: two products of every query's width with, on average, half the window.
    expected = 3 * (2 * per_layer + 2 * 2 * queries * length / 2) + 2 * output
    assert flops_per_token(model, family, length) == expected


@pytest.mark.parametrize("kind", ["parameters", "flops", "kv_bytes"])
@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
@pytest.mark.parametrize("units", [["attention"], ["attention", "mlp"], ["layer"], ["attention", "mlp", "layer"]])
def test_a_target_is_met_and_the_prediction_is_exact(model, family, windows, kind, allocation, units):
    if "layer" in units and allocation == "uniform":
        return
    calibration = calibrate(
        model, windows, *[unit for unit in ("attention", "mlp") if unit in units or "layer" in units]
    )
    cost = cost_of(kind, calibration)
    floor = cost.total - 0.5 * sum(cost.savings(site, [site.num_groups])[0] for site in calibration.sites())
    target = {kind: int(floor)}
    section = prune(units=units, strategy="magnitude", allocation=allocation, target=target)
    module = PruningModule(model, family)
    selection = module.select(calibration, section)
    module.cut(calibration, selection.cut, compensation=None)
    measured = cost_of(kind, calibration).total
    assert measured == selection.predicted <= selection.goal == target[kind] < cost.total


def test_the_exact_allocation_does_no_more_damage_than_the_greedy_one(model, family, windows):
    damage = {}
    for allocation in ("global", "cost"):
        section = prune(
            units=["attention", "mlp"],
            strategy="taylor",
            allocation=allocation,
            target={"flops": 0.7 * totals(model, windows)["flops"]},
        )
        module = PruningModule(model, family)
        calibration = module.calibration(windows, section, seed=0)
        scores = [ranking.importance() for ranking in STRATEGIES["taylor"](calibration)]
        cut = module.select(calibration, section).cut
        damage[allocation] = sum(
            float(score[list(cut.get(site.unit, {}).get(site.layer, []))].sum())
            for site, score in zip(calibration.sites(), scores, strict=True)
        )
    assert damage["cost"] <= damage["global"] * (1 + 1e-9)


def test_a_target_out_of_reach_is_refused(model, family, windows):
    section = prune(units=["attention"], strategy="magnitude", target={"parameters": 100})
    module = PruningModule(model, family)
    with pytest.raises(SpecInvalid, match="can be saved"):
        module.select(module.calibration(windows, section, seed=0), section)


def test_latency_is_measured_and_never_falls_with_what_goes(model, windows):
    calibration = calibrate(model, windows)
    cost = cost_of("latency_ms", calibration)
    assert cost.total > 0
    for site in calibration.sites()[:2]:
        saved = cost.savings(site, range(site.num_groups + 1))
        assert saved[0] == 0
        assert (np.diff(saved) >= 0).all()
        assert saved[-1] < cost.total
        assert len(set(saved.tolist())) <= site.num_groups + LATENCY_POINTS


def test_measuring_latency_leaves_the_model_alone(model, windows):
    before = model(input_ids=windows).logits
    calibration = calibrate(model, windows)
    cost_of("latency_ms", calibration).savings(calibration.sites()[0], [1])
    assert (model(input_ids=windows).logits == before).all()
    assert [site.num_groups for site in calibration.sites()[::2]] == [4, 4, 4]
