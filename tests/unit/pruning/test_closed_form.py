"""Law 4: scores from moments equal their definitions, measured on the model with a group's gate closed."""

import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.families.base import output_bias, output_weight
from sentinel.models.hooks import inputs_of, outputs_of
from sentinel.pruning.least_squares import USUAL_RIDGE
from sentinel.pruning.ranking import by_importance
from sentinel.pruning.sensitivity import output_sensitivity
from sentinel.pruning.strategies import STRATEGIES, obs
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics
from tests.unit.pruning.tiny import calibrate


@pytest.fixture
def calibration(calibration):
    """In float64, as differences of large moments are taken."""
    calibration.model.double()
    return calibration


def output_changes(calibration, index, group):
    """What closing one gate changes in the output of its own site, (tokens, out), float64."""
    sites = calibration.sites()
    with torch.no_grad(), outputs_of(sites[index].output) as seen, Gates(sites) as gates:
        calibration.model(input_ids=calibration.windows)
        gates.close(index, group)
        calibration.model(input_ids=calibration.windows)
    whole, without = (output.flatten(0, -2).double() for output in seen)
    return whole - without


def nats_per_error(calibration):
    """½ κ / out of every site."""
    kappas = output_sensitivity(calibration)
    return [0.5 * float(k) / len(output_weight(s)) for k, s in zip(kappas, calibration.sites(), strict=True)]


def site_inputs(calibration, index):
    """(tokens, in), float64."""
    seen = []
    with torch.no_grad(), inputs_of(calibration.sites()[index].output, seen.append):
        calibration.model(input_ids=calibration.windows)
    return torch.cat(seen).flatten(0, -2).double()


@pytest.mark.parametrize("name", ["energy", "fluctuation"])
def test_energy_and_fluctuation_are_the_errors_of_zeroing_and_of_the_mean(calibration, name):
    rankings, scales = STRATEGIES[name](calibration), nats_per_error(calibration)
    for index, site in enumerate(calibration.sites()):
        importance = rankings[index].importance()
        for group in range(0, site.num_groups, 1 if site.unit == "attention" else 9):
            change = output_changes(calibration, index, group)
            left = change - change.mean(0) if name == "fluctuation" else change
            error = left.square().sum(1).mean()
            assert float(importance[group]) == pytest.approx(scales[index] * float(error), rel=1e-6)


def test_wanda_is_weights_times_input_norms_as_a_share_of_the_site(calibration):
    rankings = STRATEGIES["wanda"](calibration)
    for index, (site, ranking) in enumerate(zip(calibration.sites(), rankings, strict=True)):
        norms = site_inputs(calibration, index).square().mean(0).sqrt()
        products = output_weight(site).double().abs() * norms
        shares = products.sum(0).view(site.num_groups, -1).sum(1) / products.sum()
        torch.testing.assert_close(ranking.importance(), shares, rtol=1e-6, atol=1e-9)


class RawRefit:
    """E‖W x − W' x_K‖² + λ‖W − W'‖² at its least, by plain least squares on the inputs themselves.

    The penalty is data too: √(Nλ) I below the inputs.
    """

    def __init__(self, calibration, index):
        site = calibration.sites()[index]
        inputs = site_inputs(calibration, index)
        if output_bias(site) is not None:
            inputs = inputs - inputs.mean(0)
        ridge = USUAL_RIDGE * inputs.square().mean()
        self.tokens, self.num_groups = len(inputs), site.num_groups
        self.inputs = torch.cat([inputs, (ridge * self.tokens).sqrt() * torch.eye(inputs.shape[1], dtype=inputs.dtype)])
        self.target = self.inputs @ output_weight(site).double().T

    def error(self, removed):
        kept = torch.ones(self.num_groups, dtype=torch.bool)
        kept[list(removed)] = False
        columns = kept.repeat_interleave(self.inputs.shape[1] // self.num_groups)
        features = self.inputs[:, columns]
        fitted = features @ torch.linalg.lstsq(features, self.target).solution
        return float((self.target - fitted).square().sum() / self.tokens)


def test_obs_follows_the_refits_removal_by_removal(calibration):
    """For every number of removed groups: the damage, and that no other group would have cost less."""
    rankings, scales = STRATEGIES["obs"](calibration), nats_per_error(calibration)
    for index, site in enumerate(calibration.sites()):
        if site.unit != "attention":
            continue
        brute, ranking = RawRefit(calibration, index), rankings[index]
        for count in range(1, site.num_groups + 1):
            gone = ranking.order[:count]
            assert float(ranking.damage[count - 1]) == pytest.approx(scales[index] * brute.error(gone), rel=1e-6)
            others = [brute.error([*gone[:-1], g]) for g in range(site.num_groups) if g not in gone[:-1]]
            assert brute.error(gone) <= min(others) * (1 + 1e-6)


def test_obs_scores_neurons_again_after_every_few(calibration):
    """The first of each batch is exact; the rest of a batch goes by the scores before it."""
    rankings, scales = STRATEGIES["obs"](calibration), nats_per_error(calibration)
    for index, site in enumerate(calibration.sites()):
        if site.unit != "mlp":
            continue
        brute, order = RawRefit(calibration, index), rankings[index].order
        added = rankings[index].importance()
        assert sorted(order) == list(range(site.num_groups))
        for first in range(0, 3 * obs.TOGETHER, obs.TOGETHER):
            before = brute.error(order[:first]) if first else 0.0
            cost = brute.error(order[: first + 1]) - before
            assert float(added[order[first]]) == pytest.approx(scales[index] * cost, rel=1e-6)


def test_obs_scores_many_neurons_less_often_and_chooses_as_well(monkeypatch):
    """What the refit leaves of a wide layer's output, beside removing its neurons one by one."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(1024, 1024, generator=generator, dtype=torch.float64) * torch.arange(1, 1025) ** -0.5
    second = mixed @ mixed.T / 1024
    weight = torch.randn(64, 1024, generator=generator, dtype=torch.float64)
    site = SiteStatistics(weight=weight, second=second, mean=torch.zeros(1024), has_bias=False, num_groups=1024)

    def left_when_half_is_gone():
        kept = obs._rank(site).order[512:]
        fitted = torch.linalg.solve(second[kept][:, kept], second[kept] @ weight.T)
        return float(((weight @ second) * weight).sum() - ((second[kept] @ weight.T) * fitted).sum())

    counts, remove = [], obs._Elimination.remove
    monkeypatch.setattr(obs._Elimination, "remove", lambda self, count: (counts.append(count), remove(self, count)))
    batched = left_when_half_is_gone()
    assert (counts[0], counts[-1], len(counts)) == (16, 8, 110)
    monkeypatch.setattr(obs, "TOGETHER", 1)
    monkeypatch.setattr(obs, "TOGETHER_SHARE", 0)
    assert batched == pytest.approx(left_when_half_is_gone(), rel=0.01)


def test_a_layer_that_lost_its_unit_is_still_on_the_way(model, windows, family):
    """The moments behind it are those that the whole model has."""
    calibration = calibrate(model, windows, "attention")
    family.keep_groups(model, 1, "attention", [])
    seen = []
    from_statistics(calibration, lambda site: (seen.append(site.mean), by_importance(site.per_group(site.mean)))[1])
    inputs = []
    with torch.no_grad(), inputs_of(calibration.sites()[-1].output, inputs.append):
        model(input_ids=windows)
    assert [site.layer for site in calibration.sites()] == [0, 2]
    torch.testing.assert_close(seen[-1], inputs[0].flatten(0, 1).double().mean(0), atol=1e-5, rtol=1e-5)
