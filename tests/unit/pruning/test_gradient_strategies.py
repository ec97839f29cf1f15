"""Law 4 for what is differentiated by the gates: taylor by finite differences, fisher by its matrix."""

from itertools import combinations

import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.gate_gradients import draw_labels
from sentinel.pruning.selection import Choice, select
from sentinel.pruning.strategies import STRATEGIES
from sentinel.utils.metrics import kl_divergences, next_token_losses
from tests.unit.pruning.tiny import VOCABULARY, calibrate


def test_taylor_is_the_mean_slope_of_a_window_s_loss_along_the_gate(calibration):
    """Central differences on one gate at a time, in float64."""
    calibration.model.double()
    sites = calibration.sites()
    rankings = STRATEGIES["taylor"](calibration)

    def losses_at(site, group, gate):
        with torch.no_grad(), Gates(sites) as gates:
            values = torch.ones(sites[site].num_groups, dtype=torch.float64)
            values[group] = gate
            gates.set(site, values)
            logits = calibration.model(input_ids=calibration.windows).logits
            return next_token_losses(logits, calibration.windows).double().mean(1)

    step = 1e-2
    for site, group in [(0, 0), (1, 30), (2, 3), (4, 2), (5, 7)]:
        slopes = (losses_at(site, group, 1 + step) - losses_at(site, group, 1 - step)) / (2 * step)
        expected = float(slopes.abs().mean())
        assert float(rankings[site].importance()[group]) == pytest.approx(expected, rel=2e-2, abs=1e-5)


def window_gradients(calibration):
    """∂Σ_t log p(y_t)/∂m of every window by itself, (windows, groups of all sites), labels drawn as fisher draws."""
    model, sites, windows = calibration.model, calibration.sites(), calibration.windows
    with torch.no_grad():
        log_p = model(input_ids=windows).logits.float().log_softmax(-1)
    halves = enumerate(log_p.chunk(2))
    labels = torch.cat([draw_labels(half, seed=calibration.seed + number) for number, half in halves])
    rows = []
    for window, label in zip(windows, labels, strict=True):
        with Gates(sites, requires_grad=True) as gates:
            log_p = model(input_ids=window[None]).logits[0].log_softmax(-1)
            gradients = torch.autograd.grad(log_p.gather(-1, label[:, None]).sum(), gates.values)
        rows.append(torch.cat(gradients).double())
    return torch.stack(rows)


def indicator(sites, removed):
    chosen = [torch.zeros(site.num_groups, dtype=torch.float64) for site in sites]
    for values, groups in zip(chosen, removed, strict=True):
        values[list(groups)] = 1
    return torch.cat(chosen)


def test_fisher_is_the_matrix_of_the_windows_gradients(calibration):
    """½ 1ᵀF1 of any set of groups of any sites, and each site's damage by its own block."""
    sites, z = calibration.sites(), window_gradients(calibration)
    fisher = z.T @ z / calibration.windows.numel()
    rankings = STRATEGIES["fisher"](calibration)
    for count in (1, 2, 3):
        removed = [ranking.order[:count] for ranking in rankings]
        ones = indicator(sites, removed)
        together = sum(ranking.rows[:, groups].sum(1) for ranking, groups in zip(rankings, removed, strict=True))
        expected = 0.5 * float(ones @ fisher @ ones)
        assert 0.5 * float(together.square().sum()) == pytest.approx(expected, rel=1e-3)
        for index, ranking in enumerate(rankings):
            alone = indicator(sites, [groups if at == index else [] for at, groups in enumerate(removed)])
            expected = 0.5 * float(alone @ fisher @ alone)
            assert float(ranking.damage[count - 1]) == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_a_selection_by_fisher_is_among_the_best_of_all_subsets(calibration):
    """Two of four groups in each of two layers: a quarter of the 36 subsets may be better, the greedy one not."""
    attention = calibrate(calibration.model, calibration.windows, "attention")
    rankings = STRATEGIES["fisher"](attention)[:2]
    choices = [Choice(dense_count=4, count=4, levels=range(4), savings=range(4)) for _ in rankings]

    def damage(removed):
        together = sum(r.rows[:, list(g)].sum(1) for r, g in zip(rankings, removed, strict=True))
        return float(together.square().sum())

    pairs = list(combinations(range(4), 2))
    found = damage(select(rankings, choices, 4, allocation="uniform"))
    assert found <= damage([ranking.order[:2] for ranking in rankings])
    assert sum(damage([a, b]) < found * (1 - 1e-9) for a in pairs for b in pairs) <= 9


def test_fisher_is_the_hessian_of_the_divergence_in_the_gates(model):
    """KL(model ‖ all gates at 1 − ε) ≈ ½ ε² 1ᵀF1, as far as sampled labels tell."""
    windows = torch.randint(0, VOCABULARY, (160, 24), generator=torch.Generator().manual_seed(4))
    calibration = calibrate(model, windows, "attention")
    rows = torch.cat([ranking.rows for ranking in STRATEGIES["fisher"](calibration)], dim=1)
    epsilon, sites = 0.05, calibration.sites()
    with torch.no_grad(), Gates(sites) as gates:
        whole = model(input_ids=windows).logits.double()
        for index, site in enumerate(sites):
            gates.set(index, torch.full((site.num_groups,), 1 - epsilon))
        divergence = float(kl_divergences(whole, model(input_ids=windows).logits.double()).mean())
    assert epsilon**2 * 0.5 * float(rows.sum(1).square().sum()) == pytest.approx(divergence, rel=0.25)
