import copy
from itertools import pairwise
from typing import get_args

import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.evaluation import count_parameters
from sentinel.models.hooks import inputs_of
from sentinel.prune_spec import AllocationName, StrategyName
from sentinel.pruning.calibration import LayerwisePass
from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.tiny import CUT, calibrate, prune


def masked_logits(model, family, windows, removed):
    sites = family.sites(model)
    with Gates(sites) as gates:
        for index, site in enumerate(sites):
            for group in removed.get(site.unit, {}).get(site.layer, ()):
                gates.close(index, group)
        return model(input_ids=windows).logits


def cut(module, windows, groups, compensation=None):
    return module.cut(calibrate(module.model, windows), groups, compensation=compensation)


def test_a_cut_equals_the_mask_and_remembers_dense_indices(model, family, windows):
    dense = copy.deepcopy(model)
    module = PruningModule(model, family)
    removed, records = cut(module, windows, CUT)
    assert (removed, records) == (CUT, [])
    again, _ = cut(module, windows, {"attention": {1: [0]}, "mlp": {0: [0, 1]}})
    assert again == {"attention": {1: [1]}, "mlp": {0: [1, 2]}}
    assert module.kept["attention"] == [[0, 2, 3], [2], [0, 1, 3]]
    assert module.removed["attention"] == {0: [1], 1: [0, 1, 3], 2: [2]}
    assert module.removed["mlp"][0] == sorted([*CUT["mlp"][0], 1, 2])
    assert module.sparsity["attention"] == pytest.approx(5 / 12)
    neurons = module.dense_counts["mlp"]
    assert module.sparsity["mlp"] == pytest.approx(34 / sum(neurons))
    expected = masked_logits(dense, family, windows, module.removed)
    # Without groups, sums are taken in another order; of logits near 10 the last digits are.
    assert (model(input_ids=windows).logits - expected).abs().max() <= 1e-5 * max(1, float(expected.abs().max()))


def test_of_a_unit_that_the_model_never_had_nothing_is_gone(model, family, windows):
    """As an earlier run may have left it."""
    cut(PruningModule(model, family), windows, {"attention": dict.fromkeys(range(3), range(4))})
    module = PruningModule(model, family)
    cut(module, windows, {"mlp": {0: [1]}})
    assert module.sparsity == {"attention": 0.0, "mlp": pytest.approx(1 / sum(module.dense_counts["mlp"]))}


@pytest.mark.parametrize("groups", [CUT, {"attention": {1: range(4)}, "mlp": {2: [1]}}])
def test_kept_groups_rebuild_the_same_shapes(model, family, windows, groups):
    dense = copy.deepcopy(model)
    module = PruningModule(model, family)
    cut(module, windows, groups)
    rebuilt = PruningModule(dense, family, kept=module.kept)
    assert rebuilt.removed == module.removed
    assert torch.equal(rebuilt.model(input_ids=windows).logits, model(input_ids=windows).logits)


def test_layer_by_layer_equals_the_whole_model(model, family, windows, monkeypatch):
    """In several batches, bit for bit, to the logits."""
    monkeypatch.setattr("sentinel.data.loaders.windows.FORWARD_TOKENS", 48)
    seen = []
    expected = []
    with inputs_of(family.layers(model)[2], seen.append):
        expected += [model(input_ids=windows[at : at + 2]).logits for at in (0, 2, 4)]
    layerwise = LayerwisePass(calibrate(model, windows))
    layerwise.run(0)
    layerwise.run(1)
    assert all(map(torch.equal, layerwise.hidden, seen))
    layerwise.run(2)
    assert all(map(torch.equal, layerwise.logits(), expected))


@pytest.mark.parametrize("allocation", get_args(AllocationName))
@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_a_target_is_met_and_not_passed_by_more_than_a_step(model, family, windows, strategy, allocation):
    units = ["attention"] if strategy == "entropy" else ["attention", "mlp"]
    mix = {"wanda": 1, "obs": 2} if strategy == "combined" else None
    target = {"parameters": int(0.9 * count_parameters(model))}
    section = prune(strategy=strategy, allocation=allocation, units=units, mix=mix, target=target)
    module = PruningModule(model, family)
    calibration = module.calibration(windows, section, seed=0)
    selection = module.select(calibration, section)
    choices = module.demand(calibration, section).choices
    steps = [max(after - before for before, after in pairwise(choice.savings)) for choice in choices]
    step = sum(steps) if allocation == "uniform" else max(steps)
    assert selection.goal - step < selection.predicted <= selection.goal


@pytest.mark.parametrize(
    "settings", [{"allocation": "global"}, {"units": ["mlp"], "allocation": "cost"}, {"units": ["attention", "mlp"]}]
)
def test_a_sparsity_is_reached_over_several_cuts(model, family, windows, settings):
    module = PruningModule(model, family)
    section = prune(**settings)
    for before, progress in ((0.0, 0.5), (0.5, 1.0)):
        calibration = module.calibration(windows, section, seed=0)
        selection = module.select(calibration, section, before=before, progress=progress)
        module.cut(calibration, selection.cut, compensation="least_squares")
        for unit in section.units:
            # Half a block of 8 in each of three layers.
            rounding = 12 / sum(module.dense_counts[unit]) if unit == "mlp" else 0
            assert module.sparsity[unit] == pytest.approx(0.5 * progress, abs=rounding + 1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"units": ["mlp"]}, {"target": {"parameters": 12000}, "units": ["attention", "mlp"]}]
)
def test_a_plan_is_what_even_counts_leave(model, family, windows, settings):
    """Found on the dense model, without a score."""
    section = prune(allocation="uniform", strategy="random", **settings)
    module = PruningModule(model, family)
    calibration = module.calibration(windows, section, seed=0)
    planned = module.plan(calibration, section)
    module.cut(calibration, module.select(calibration, section).cut, compensation=None)
    assert planned == {unit: family.counts(model, unit) for unit in ("attention", "mlp")}


def test_strategies_and_seeds_are_the_spec_s(model, family, windows):
    module = PruningModule(model, family)

    def selected(seed, **settings):
        section = prune(target={"sparsity": 0.25}, **settings)
        return module.select(module.calibration(windows, section, seed=seed), section).cut

    assert selected(1, strategy="random") != selected(2, strategy="random")
    assert selected(1, strategy="combined", mix={"magnitude": 1.0}) == selected(1, strategy="magnitude")
