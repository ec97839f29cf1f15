"""Learnt gates beat chance on a trained model, on windows that they have not seen."""

import pytest
import torch

from sentinel.inputs import load_inputs
from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.strategies import STRATEGIES
from sentinel.spec import parse_spec
from sentinel.utils.metrics import kl_divergences
from tests.unit.pruning.tiny import calibrate


@torch.no_grad()
def divergence(calibration, windows, rankings):
    """KL(dense ‖ gated) in nats per token when half of all groups are closed."""
    importance = torch.cat([ranking.importance() for ranking in rankings])
    kept = torch.ones(len(importance)).index_fill(0, importance.argsort()[: len(importance) // 2], 0)
    dense = calibration.model(input_ids=windows).logits
    sites = calibration.sites()
    with Gates(sites) as gates:
        for index, values in enumerate(kept.split([site.num_groups for site in sites])):
            gates.set(index, values)
        return float(kl_divergences(dense, calibration.model(input_ids=windows).logits).mean())


@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_half_of_the_groups_cost_far_less_than_by_chance(unit):
    document = {
        "model": "builtin/llama",
        "data": {"source": "builtin", "sequence_length": 32},
        "prune": {"target": {"sparsity": 0.5}, "calibration_sequences": 32},
        "heal": None,
        "evaluate": {"tokens": 64},
        "device": "cpu",
    }
    inputs = load_inputs(parse_spec(document), allowed_roots=None)
    known, unknown = inputs.calibration.split(16)
    calibration = calibrate(inputs.dense.requires_grad_(False), known, unit)
    learned = divergence(calibration, unknown, STRATEGIES["learned"](calibration))
    draws = [STRATEGIES["random"](calibrate(inputs.dense, known, unit, seed=seed)) for seed in range(4)]
    assert learned < 0.5 * min(divergence(calibration, unknown, rankings) for rankings in draws)
