"""All of it together: what depends on what, and what it says."""

import pytest
import torch

from sentinel.stress.protocol import stress

NOTHING = {"probes": None, "alternation": None, "damage": None}


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def found(inputs, pruned, stress_spec, told):
    """Neither model is changed on the way."""
    models = (inputs.dense, pruned)
    before = [tensor.clone() for model in models for tensor in model.parameters()]
    result = stress(inputs, pruned, stress_spec().evaluate.stress, seed=0, tell=told.append)
    after = [tensor for model in models for tensor in model.parameters()]
    assert all(map(torch.equal, before, after))
    assert not any(tensor.requires_grad for tensor in after)
    return result


def test_everything_is_measured_of_both_models(found, told):
    assert [record.domain for record in found.domains] == ["data", "programs"]
    assert [record.probe for record in found.probes] == ["repetition", "copying", "recall"]
    assert found.alternation.other == "programs"
    assert sum(map(len, found.damage.dense.removed.values())) == 4
    assert sum(map(len, found.damage.pruned.removed.values())) == 3  # a quarter of the 13 that are left
    assert len(told) == 6


def test_what_the_models_do_not_know_costs_them_more(found):
    stories, programs = found.domains
    assert programs.dense_loss > stories.dense_loss + 3
    assert stories.increase > 0
    assert stories.windows == 8  # of 64 tokens: `tokens`, not all of the evaluation text


def test_the_same_again_is_the_same_and_a_pruned_model_is_measured_like_a_dense_one(found, inputs, stress_spec):
    same = stress(inputs, inputs.dense, stress_spec().evaluate.stress, seed=0, tell=str)
    assert same.alternation.pruned == same.alternation.dense == found.alternation.dense
    assert same.damage.pruned == same.damage.dense == found.damage.dense
    assert [record.pruned for record in same.probes] == [record.dense for record in found.probes]
    assert [record.increase for record in same.domains] == [0, 0]


@pytest.mark.parametrize("name", ["alternation", "damage"])
def test_no_measurement_depends_on_what_else_is_asked_for(found, inputs, pruned, stress_spec, name):
    asked = stress_spec(**{key: None for key in NOTHING if key != name}).evaluate.stress
    alone = stress(inputs, pruned, asked, seed=0, tell=str)
    assert getattr(alone, name) == getattr(found, name)
    assert alone.domains == found.domains
    assert alone.probes == []


def test_nothing_that_is_learnt_is_measured(inputs):
    for some, others in (
        (torch.cat([inputs.calibration, inputs.training]), inputs.evaluation),
        (inputs.domains["programs"].training, inputs.domains["programs"].evaluation),
    ):
        assert not {tuple(window) for window in some.tolist()} & {tuple(window) for window in others.tolist()}
