"""A trial says what cutting for real would do, and leaves the model as it was."""

import copy
from typing import get_args

import pytest
import torch

from sentinel.models.evaluation import compare
from sentinel.prune_spec import CompensationName
from sentinel.pruning.repair import cut_and_compensate
from sentinel.pruning.trial import Trial, as_cut
from tests.unit.pruning.tiny import calibrate

KINDS = (None, *get_args(CompensationName))
# Weights before the output projection are improved for the selection that is taken only.
TRIED_AS = {"reconstruction": "residual_least_squares"}
# Per site, in order: attention and MLP of each of three layers.
SELECTIONS = (
    ((1,), (), (0, 3), (), (2,), tuple(range(8))),
    ((1,), (), (0, 2), (), (2,), tuple(range(8))),
    ((), (), (), (), (), tuple(range(16))),
    ((), (), (0, 1, 2, 3), tuple(range(40)), (), ()),
    ((), (), (), (), (), ()),
)


def cut_for_real(model, windows, removed, compensation):
    copied = copy.deepcopy(model)
    calibration = calibrate(copied, windows)
    cut_and_compensate(calibration, as_cut(calibration.sites(), removed), compensation=compensation)
    return compare(model, copied, windows).kl_to_dense


@pytest.mark.parametrize("compensation", KINDS)
def test_a_trial_is_what_cutting_a_copy_does(model, windows, compensation):
    """From whatever selection was settled before."""
    weights, logits = copy.deepcopy(model.state_dict()), model(input_ids=windows).logits
    trial = Trial(calibrate(model, windows), compensation=compensation)
    for settled in (None, SELECTIONS[0], SELECTIONS[3]):
        if settled is not None:
            trial.settle(settled)
        for removed in SELECTIONS:
            expected = cut_for_real(model, windows, removed, TRIED_AS.get(compensation, compensation))
            trial._known.clear()
            assert trial.divergence(removed) == pytest.approx(expected, rel=1e-3, abs=1e-6)
            trial.settle(settled or SELECTIONS[-1])
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model(input_ids=windows).logits, logits)
    assert not any(p.requires_grad for p in model.parameters())


def test_what_is_known_is_not_measured_again(model, windows):
    trial = Trial(calibrate(model, windows), compensation="least_squares")
    first = trial.divergence(SELECTIONS[0])
    assert trial.divergence(SELECTIONS[0]) == first
    assert trial.settle(SELECTIONS[0]) == pytest.approx(first, rel=1e-6)
    assert trial.evaluations == 1


def test_layers_before_the_first_difference_are_not_run_again(model, family, windows):
    trial = Trial(calibrate(model, windows), compensation="least_squares")
    trial.settle(SELECTIONS[0])
    ran = []
    handles = [
        family.site(model, layer, "attention").output.register_forward_hook(lambda *_, at=layer: ran.append(at))
        for layer in range(3)
    ]
    trial.divergence(SELECTIONS[1])
    for handle in handles:
        handle.remove()
    assert set(ran) == {1, 2}


def test_selections_become_cuts(calibration):
    assert as_cut(calibration.sites(), SELECTIONS[0]) == {
        "attention": {0: [1], 1: [0, 3], 2: [2]},
        "mlp": {2: list(range(8))},
    }
