"""A group may start from the layer at the other end, in any family: it changes no logit (law 6)."""

import copy

import pytest
import torch

from sentinel.grow_spec import Grow
from sentinel.models.adaptive.pathways import pairs
from sentinel.models.families.parts import ListPart
from sentinel.pruning.growth.growing import grow
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import rank_groups
from tests.unit.models.adaptive.test_pathways import twice_as_wide
from tests.unit.models.conftest import CONFIGS, UNITS, make_loaded
from tests.unit.pruning.tiny import CUT, calibrate, prune

TOKENS = torch.randint(1, 30, (4, 9), generator=torch.Generator().manual_seed(2))


def grown(module, dense, windows, **settings):
    how = Grow.model_validate({"fraction": 1e-6, "initialization": "paired", "strategy": "balanced", **settings})
    return grow(module, dense, how=how, prune=prune(units=UNITS, mlp_block=1), windows=windows, seed=0)


def most_important(module, windows, unit, layer):
    """The group, by its index in the dense model."""
    calibration = calibrate(module.model, windows)
    sites = zip(calibration.sites(), rank_groups(calibration, "taylor"), strict=True)
    (order,) = (ranking.order for site, ranking in sites if (site.unit, site.layer) == (unit, layer))
    return module.kept[unit][layer][order[-1]]


def slices(module, unit, layer, group):
    """Everything that a group owns but for its output slice, biases too."""
    kept = module.kept[unit][layer]
    found = []
    for part in module.family.parts(module.model, layer, unit)[:-1]:
        features = part.features([kept.index(group)], num_groups=len(kept))
        if isinstance(part, ListPart):
            found += [value for at in features for value in part.entries[at].parameters()]
        found += [value.index_select(dim, features) for _, value, dim in part.tensors()]
    return found


def output(module, unit, layer, group):
    kept = module.kept[unit][layer]
    part = module.family.parts(module.model, layer, unit)[-1]
    return part.weight_of(kept.index(group), num_groups=len(kept))


@pytest.mark.parametrize("variant", CONFIGS)
def test_law_6_a_paired_group_changes_no_logit_and_is_the_other_layer_s_most_important(variant):
    dense, _, family = make_loaded(variant)
    dense.requires_grad_(False)
    module = PruningModule(copy.deepcopy(dense), family)
    module.cut(calibrate(module.model, TOKENS), {"attention": {0: [0]}, "mlp": {0: [1, 5]}}, compensation=None)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.mul_(1.05)
    before = module.model(TOKENS).logits
    found = grown(module, dense, TOKENS)
    assert {unit: set(layers) for unit, layers in found.groups.items()} == {unit: {0} for unit in UNITS}
    assert (found.module.model(TOKENS).logits - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    for unit in UNITS:
        (new,) = found.groups[unit][0]
        best = most_important(module, TOKENS, unit, 2)
        mine, theirs = slices(found.module, unit, 0, new), slices(found.module, unit, 2, best)
        assert mine
        assert all(map(torch.equal, mine, theirs))
        assert not output(found.module, unit, 0, new).any()


def test_several_groups_start_from_different_ones(dense, module, windows):
    """Two of the same weights would learn the same for ever."""
    module.cut(calibrate(module.model, windows), {"attention": {0: [1]}}, compensation=None)
    found = grown(module, dense, windows, fraction=0.2, strategy="gradient_sensitivity")
    for layers in found.groups.values():
        for layer, groups in layers.items():
            unit = "attention" if layers is found.groups["attention"] else "mlp"
            first, *others = (torch.cat([s.flatten() for s in slices(found.module, unit, layer, g)]) for g in groups)
            assert not any(torch.equal(first, other) for other in others)


def test_the_middle_layer_has_no_pair_and_starts_from_what_it_lost(dense, module, windows):
    found = grown(module, dense, windows, fraction=0.9)
    whole = PruningModule(dense, module.family)
    assert sorted(found.groups["attention"][1]) == CUT["attention"][1]
    for group in found.groups["attention"][1]:
        assert all(map(torch.equal, slices(found.module, "attention", 1, group), slices(whole, "attention", 1, group)))


def test_so_does_a_layer_whose_pair_has_nothing_left(dense, family, windows):
    module = PruningModule(copy.deepcopy(dense), family)
    module.cut(calibrate(module.model, windows), {"attention": {0: [1], 2: [0, 1, 2, 3]}}, compensation=None)
    found = grown(module, dense, windows, fraction=0.9)
    whole = PruningModule(dense, family)
    assert all(map(torch.equal, slices(found.module, "attention", 0, 1), slices(whole, "attention", 0, 1)))


def test_a_layer_of_another_build_is_no_pair():
    model, _, family = make_loaded("llama-gqa")
    assert pairs(model, family, "attention") == {0: 2, 2: 0}

    assert pairs(model, twice_as_wide(family), "attention") == {}
    assert pairs(model, twice_as_wide(family), "mlp") == {0: 2, 2: 0}
