from typing import get_args

import pytest
import torch

from sentinel import strategy_catalog
from sentinel.models.adaptive.gates import Gates
from sentinel.models.families import family_of
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.strategies import STRATEGIES
from sentinel.spec import StrategyName
from sentinel.utils.metrics import next_token_losses


@pytest.fixture
def calibration(model, windows):
    return Calibration(model=model, family=family_of(model.config.model_type), windows=windows, seed=5)


def test_every_strategy_of_the_spec_exists():
    assert set(STRATEGIES) == set(get_args(StrategyName)) == {entry.name for entry in strategy_catalog.STRATEGIES}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_score_per_group_and_the_model_is_left_as_it_was(calibration, name):
    model = calibration.model
    before = model(input_ids=calibration.windows).logits
    importance = STRATEGIES[name](calibration)
    assert [len(scores) for scores in importance] == calibration.family.counts(model)
    assert all(torch.isfinite(scores).all() and scores.dtype == torch.float64 for scores in importance)
    assert len({round(float(score), 12) for scores in importance for score in scores}) > 1
    assert torch.equal(model(input_ids=calibration.windows).logits, before)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", STRATEGIES)
def test_scores_repeat_bit_for_bit(calibration, name):
    assert all(map(torch.equal, STRATEGIES[name](calibration), STRATEGIES[name](calibration)))


def test_taylor_is_the_mean_slope_of_a_window_s_loss_along_the_gate(calibration):
    """Central differences on one gate at a time, in float64."""
    calibration.model.double()
    sites = calibration.family.sites(calibration.model)
    importance = STRATEGIES["taylor"](calibration)

    def losses_at(site, group, gate):
        with Gates(sites) as gates:
            values = torch.ones(sites[site].num_groups, dtype=torch.float64)
            values[group] = gate
            gates.set(site, values)
            logits = calibration.model(input_ids=calibration.windows).logits
            return next_token_losses(logits, calibration.windows).double().mean(1)

    step = 1e-2
    for site, group in [(0, 0), (1, 3), (2, 2)]:
        slopes = (losses_at(site, group, 1 + step) - losses_at(site, group, 1 - step)) / (2 * step)
        assert float(importance[site][group]) == pytest.approx(float(slopes.abs().mean()), rel=2e-2, abs=1e-5)


def test_entropy_equals_its_definition(calibration):
    model, family = calibration.model, calibration.family
    importance = STRATEGIES["entropy"](calibration)
    model.set_attn_implementation("eager")
    maps = model(input_ids=calibration.windows, output_attentions=True).attentions
    queries = family.queries_per_kv_head(model.config)
    for layer, attention in enumerate(maps):
        p = attention.double()
        rows = -(p * torch.where(p > 0, p, 1).log()).sum(-1)
        for group, score in enumerate(importance[layer]):
            expected = -rows[:, group * queries : (group + 1) * queries].mean()
            assert float(score) == pytest.approx(float(expected), rel=1e-5)


def test_magnitude_counts_the_weights_of_the_group_only(calibration):
    model, family = calibration.model, calibration.family
    before = STRATEGIES["magnitude"](calibration)
    site = family.sites(model)[1]
    columns = slice(2 * site.group_width, 3 * site.group_width)
    weight = site.output.weight
    weight.data[columns] *= 10 if model.config.model_type == "gpt2" else 1
    if model.config.model_type != "gpt2":
        weight.data[:, columns] *= 10
    after = STRATEGIES["magnitude"](calibration)
    assert after[1].argmax() == 2
    torch.testing.assert_close(after[0], before[0])
    for scores in after:
        assert float(scores.mean()) == pytest.approx(1)


def test_random_depends_on_the_seed_alone(calibration):
    other = Calibration(model=calibration.model, family=calibration.family, windows=calibration.windows[:1], seed=6)
    assert not torch.equal(STRATEGIES["random"](calibration)[0], STRATEGIES["random"](other)[0])
