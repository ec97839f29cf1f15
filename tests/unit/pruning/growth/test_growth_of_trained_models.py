"""What growth promises and brings back in a model that has learnt something, of which half of the heads were cut."""

import copy

import pytest
import torch

from sentinel.grow_spec import Grow
from sentinel.models.evaluation import compare
from sentinel.pruning.growth.growing import grow
from sentinel.pruning.pruning_module import PruningModule
from sentinel.spec import parse_spec

PRUNE = parse_spec(
    {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}, "strategy": "taylor", "search": None}}
).prune


@pytest.fixture
def module(trained):
    """Not repaired, so that every group is missed for what it did."""
    module = PruningModule(copy.deepcopy(trained.dense), trained.family)
    calibration = module.calibration(trained.calibration, PRUNE, seed=0)
    module.cut(calibration, module.select(calibration, PRUNE).cut, compensation=None)
    return module


def grown(module, trained, **how):
    return grow(module, trained.dense, how=Grow(**how), prune=PRUNE, windows=trained.calibration, seed=0)


def divergence(trained, model):
    return compare(trained.dense, model, trained.calibration).kl_to_dense


def test_gains_are_ordered_like_what_each_group_brings_back(trained, module):
    """Law 11: against the oracle, every removed group reopened by itself with its old weights."""
    brought, promised = [], []
    for layer, gains in grown(module, trained).gains["attention"].items():
        for group, gain in gains.items():
            kept = [list(groups) for groups in module.kept["attention"]]
            kept[layer] = sorted([*kept[layer], group])
            back = PruningModule(copy.deepcopy(trained.dense), trained.family, kept={**module.kept, "attention": kept})
            brought.append(-divergence(trained, back.model))
            promised.append(gain)
    ranks = torch.tensor([brought, promised]).argsort(1).argsort(1).double()
    rho = float(torch.corrcoef(ranks)[0, 1])
    print(f"\n{trained.dense.config.model_type}: Spearman {rho:.2f} over {len(promised)} removed groups")
    assert rho > 0.4


def test_fitted_outputs_bring_back_much_of_what_was_lost(trained, module):
    before = divergence(trained, module.model)
    after = divergence(trained, grown(module, trained, fraction=0.2, initialization="least_squares").module.model)
    assert after < 0.8 * before
