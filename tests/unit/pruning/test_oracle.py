"""Law 11: how the scores agree with the ablation oracle on a trained model, and how evenly they spread a budget.

Printed for every strategy (`pytest -s`); asserted only where it is bound to hold.
"""

import pytest
import torch

from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import STRATEGIES
from sentinel.spec import parse_spec


def spearman(a, b):
    ranks = torch.stack([values.argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def table(trained, unit):
    """Strategy → Spearman against ablation over all groups, and groups per layer that half of them leaves."""
    module = PruningModule(trained.dense, trained.family)
    prune = parse_spec({"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}, "units": [unit]}}).prune
    calibration = module.calibration(trained.calibration, prune, seed=0)
    counts = trained.family.counts(trained.dense, unit)
    names = [name for name in STRATEGIES if unit == "attention" or name != "entropy"]
    scores = {name: torch.cat([r.importance() for r in STRATEGIES[name](calibration)]) for name in names}
    rows = {}
    for name, values in scores.items():
        kept = torch.ones(len(values)).index_fill(0, values.argsort()[: len(values) // 2], 0)
        rows[name] = spearman(values, scores["ablation"]), [int(part.sum()) for part in kept.split(counts)]
    return rows


def test_scores_are_held_against_the_oracle(trained):
    rows = table(trained, "attention")
    lines = [f"{name:12} ρ {rho:5.2f}  left per layer {left}" for name, (rho, left) in rows.items()]
    print(f"\n{trained.dense.config.model_type}, attention, against ablation:", *lines, sep="\n")
    assert rows["ablation"][0] == pytest.approx(1)
    assert all(-1 <= rho <= 1 for rho, _ in rows.values())
    for name in ("taylor", "fisher", "energy", "obs", "learned"):
        assert rows[name][0] > 0.3, name
        assert rows[name][0] > rows["random"][0], name
