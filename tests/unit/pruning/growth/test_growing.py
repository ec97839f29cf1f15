"""What grows is what was asked for, changes nothing before it learns, and is learnt from."""

import copy

import pytest
import torch

from sentinel.grow_spec import Grow
from sentinel.models.evaluation import compare
from sentinel.models.optimized.insertion import MOST_GROWTH
from sentinel.pruning.growth.growing import grow
from sentinel.pruning.growth.initialization import fit_outputs
from sentinel.pruning.growth.strategies import STRATEGIES
from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.tiny import calibrate, prune

UNITS = ["attention", "mlp"]


def grown(module, dense, windows, *, units=UNITS, layers=(), seed=0, **settings):
    how = Grow.model_validate({"fraction": 0.2, "initialization": "removed", **settings})
    return grow(
        module, dense, how=how, prune=prune(units=units, mlp_block=4), windows=windows, seed=seed, layers=layers
    )


def counts(module):
    return {unit: [len(groups) for groups in layers] for unit, layers in module.kept.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_so_many_removed_groups_come_back(dense, module, windows, strategy):
    units = ["attention"] if strategy == "entropy_gap" else UNITS
    before = counts(module)
    found = grown(module, dense, windows, strategy=strategy, units=units)
    for unit in units:
        new = found.groups[unit]
        assert all(set(groups) <= set(module.removed[unit][layer]) for layer, groups in new.items())
        number = {"attention": 2, "mlp": max(1, round(0.2 * sum(module.dense_counts["mlp"]) / 4)) * 4}[unit]
        assert sum(map(len, new.values())) == number
        assert {layer: set(gains) for layer, gains in found.gains[unit].items()} == {
            layer: set(groups) for layer, groups in module.removed[unit].items()
        }
    assert counts(module) == before
    assert all(len(groups) % 4 == 0 for groups in found.groups.get("mlp", {}).values())


@pytest.mark.parametrize("initialization", ["removed", "paired", "split", "fresh"])
@pytest.mark.parametrize("strategy", ["gradient_sensitivity", "balanced"])
def test_law_6_growing_changes_no_logit(dense, module, windows, initialization, strategy):
    before = module.model(windows).logits
    found = grown(module, dense, windows, initialization=initialization, strategy=strategy)
    assert sum(map(len, found.groups["attention"].values())) == 2
    torch.testing.assert_close(found.module.model(windows).logits, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("initialization", ["removed", "paired", "split", "fresh"])
def test_what_grew_learns(dense, module, windows, initialization):
    found = grown(module, dense, windows, initialization=initialization)
    for unit, layers in found.places().items():
        for layer, places in layers.items():
            site = found.module.family.site(found.module.model, layer, unit)
            output = found.module.family.parts(found.module.model, layer, unit)[-1]
            weight = site.output.weight.requires_grad_(True)
            found.module.model(windows).logits.logsumexp(-1).sum().backward()
            features = output.features(places, num_groups=site.num_groups)
            assert weight.grad.index_select(output.weight_dim, features).abs().amax() > 0


@pytest.mark.parametrize("initialization", ["split", "fresh"])
def test_a_layer_grows_no_further_than_a_checkpoint_of_it_is_loaded(dense, module, windows, initialization):
    settings = {"units": ["attention"], "layers": [0], "fraction": 0.9, "strategy": "random"}
    for _ in range(3):
        if found := grown(module, dense, windows, initialization=initialization, **settings):
            module = found.module
    assert len(module.kept["attention"][0]) == MOST_GROWTH * 4


def test_halves_of_a_split_are_not_the_same(dense, module, windows):
    found = grown(module, dense, windows, initialization="split", units=["mlp"], fraction=0.05)
    for layer, groups in found.groups["mlp"].items():
        dense_count = module.dense_counts["mlp"][layer]
        parts, kept = found.module.family.parts(found.module.model, layer, "mlp"), found.module.kept["mlp"][layer]
        for new in groups:
            assert new >= dense_count
            pair = kept.index(new), kept.index(new - dense_count)
            *inner, output = ([part.weight_of(place, num_groups=len(kept)) for place in pair] for part in parts)
            assert all(torch.equal(*slices) for slices in inner)
            assert not torch.equal(*output)


def test_fitted_outputs_stay_silent_where_they_would_do_harm(dense, family, windows):
    """The dense model itself lacks nothing: nothing may be made of what little noise there is."""
    whole = PruningModule(dense, family)
    candidates = {"attention": {0: [4], 2: [4, 5]}}
    wide = whole.with_groups(dense, candidates)
    fit_outputs(wide, candidates, dense, windows, seed=0)
    assert compare(dense, wide.model, windows).kl_to_dense == pytest.approx(0, abs=1e-6)


def test_balanced_evens_the_counts(dense, module, windows):
    module.cut(calibrate(module.model, windows), {"attention": {1: [0]}}, compensation=None)
    found = grown(module, dense, windows, strategy="balanced", units=["attention"])
    assert counts(module)["attention"] == [3, 1, 3]
    assert counts(found.module)["attention"] == [3, 3, 3]


def test_entropy_gap_prefers_a_layer_whose_heads_became_diffuse(dense, module, windows):
    """Queries of zero attend to everything alike."""
    query = module.family.parts(module.model, 1, "attention")[0].module
    with torch.no_grad():
        for parameter in query.parameters():
            parameter.mul_(1e-3)
    found = grown(module, dense, windows, strategy="entropy_gap", units=["attention"])
    assert set(found.groups["attention"]) == {1}


def test_layers_may_be_named(dense, module, windows):
    found = grown(module, dense, windows, layers=[2], units=["attention"])
    assert set(found.groups["attention"]) == {2}
    assert grown(module, dense, windows, layers=[1], units=["mlp"]) is None


def test_a_layer_that_lost_everything_grows_again(dense, family, windows):
    module = PruningModule(copy.deepcopy(dense), family)
    module.cut(calibrate(module.model, windows), {"attention": {1: [0, 1, 2, 3]}}, compensation="least_squares")
    before = module.model(windows).logits
    for strategy in ("gradient_sensitivity", "entropy_gap", "balanced"):
        found = grown(module, dense, windows, strategy=strategy, units=["attention"])
        assert set(found.groups["attention"]) == {1}
        torch.testing.assert_close(found.module.model(windows).logits, before, rtol=1e-4, atol=1e-4)


def test_more_than_the_dense_model_ever_had(dense, family, windows):
    whole = PruningModule(dense, family)
    assert grown(whole, dense, windows) is None
    found = grown(whole, dense, windows, initialization="fresh", units=["attention"], fraction=0.5)
    assert sum(counts(found.module)["attention"]) == sum(whole.dense_counts["attention"]) + 6


def test_the_same_seed_draws_the_same(dense, module, windows):
    first, again, other = (grown(module, dense, windows, strategy="random", seed=seed) for seed in (1, 1, 2))
    assert first.groups == again.groups
    assert first.gains != other.gains
