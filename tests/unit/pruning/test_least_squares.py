"""Law 5 on plain numbers: what `refit` reports is what its change does to the data it was fitted on."""

import pytest
import torch

from sentinel.pruning.least_squares import HELD_OUT_EVERY, RIDGES, USUAL_RIDGE, SplitSums, Sums, refit


@pytest.fixture
def data():
    """Correlated inputs with a mean (8 windows × 50 tokens × 6) and what a projection lacks, (…, 5)."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(8, 50, 3, generator=generator) @ torch.randn(3, 6, generator=generator)
    inputs = inputs + 0.3 * torch.randn(8, 50, 6, generator=generator) + torch.arange(6) / 4
    lack = inputs @ torch.randn(6, 5, generator=generator) + 0.5 * torch.randn(8, 50, 5, generator=generator) + 1
    return inputs, lack, lack + torch.randn(8, 50, 5, generator=generator)


def sums_of(inputs, lack, target, *, batch=3):
    sums = SplitSums()
    for part in zip(inputs.split(batch), lack.split(batch), target.split(batch), strict=True):
        sums.add(part[0], lack=part[1], target=part[2])
    return sums


def left_over(repair, inputs, lack):
    """E of what the repaired projection still lacks, (…, 5), float64."""
    return lack.double() - inputs.double() @ repair.weight.T - (0 if repair.bias is None else repair.bias)


def test_sums_add_up_to_those_of_all_tokens(data):
    target = data[2]
    sums = sums_of(*data)
    whole, once = sums.fitted + sums.held_out, Sums.of(*data)
    for name in ("xx", "xe", "x", "e"):
        torch.testing.assert_close(getattr(whole, name), getattr(once, name), rtol=1e-5, atol=1e-3)
    assert whole.tokens == once.tokens == 400
    assert (sums.fitted.tokens, sums.held_out.tokens) == (300, 100)
    assert whole.tt == pytest.approx(float(target.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("has_bias", [True, False])
def test_reported_errors_are_the_measured_ones(data, has_bias):
    inputs, lack, target = data
    repair = refit(sums_of(*data), has_bias=has_bias)
    energy = float(target.double().square().sum())
    assert repair.error_before == pytest.approx(float(lack.double().square().sum()) / energy, rel=1e-6)
    after = float(left_over(repair, inputs, lack).square().sum()) / energy
    assert repair.error_after == pytest.approx(after, rel=1e-5)
    assert (repair.bias is not None) == has_bias


@pytest.mark.parametrize("windows", [8, 2])
@pytest.mark.parametrize("spread", [1e-2, 0.0])
def test_inputs_far_from_zero_that_hardly_vary_are_refitted_as_well_as_rounding_lets(spread, windows):
    """Centred, their sums have eigenvalues below zero; two windows are too few to hold one out."""
    generator = torch.Generator().manual_seed(3)
    means = 3 + torch.rand(64, generator=generator)
    inputs = means + spread * torch.randn(windows, 20, 4, generator=generator) @ torch.randn(4, 64, generator=generator)
    lack = inputs @ torch.randn(64, 5, generator=generator) + 1
    sums = sums_of(inputs, lack, lack)
    assert torch.linalg.eigvalsh(sums.fitted.centred().xx)[0] < 0
    repair = refit(sums, has_bias=True)
    after = float(left_over(repair, inputs, lack).square().sum() / lack.double().square().sum())
    assert 0 <= repair.error_after < 1e-3 * repair.error_before
    assert after < 1e-3
    assert repair.weight.isfinite().all()


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_refit_comes_close_to_the_best_linear_fit(data, has_bias):
    inputs, lack, target = (part.flatten(0, 1).double() for part in data)
    features = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1) if has_bias else inputs
    best = lack - features @ torch.linalg.lstsq(features, lack).solution
    error = float(best.square().sum() / target.square().sum())
    repair = refit(sums_of(*data), has_bias=has_bias)
    assert error <= repair.error_after * (1 + 1e-6)
    assert repair.error_after <= 1.05 * error
    assert repair.error_after < 0.8 * repair.error_before


@pytest.mark.parametrize("seed", range(20))
def test_a_refit_never_raises_the_error(seed):
    """Few tokens with heavy tails, less than a stable solve would like."""
    generator = torch.Generator().manual_seed(seed)
    inputs, lack = (torch.randn(5, 2, width, generator=generator) ** 3 for width in (8, 5))
    repair = refit(sums_of(inputs, lack, lack + 1), has_bias=seed % 2 == 0)
    assert repair.error_after <= repair.error_before


def test_the_ridge_is_the_best_on_windows_that_the_fit_did_not_see():
    """Every fourth window is held out; few noisy tokens make a strong ridge the better one."""
    chosen = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(8, 3, 10, generator=generator)
        noise = torch.randn(8, 3, 4, generator=generator) * 10 ** (seed % 4 - 2)
        lack = inputs @ torch.randn(10, 4, generator=generator) + noise
        out = torch.arange(8) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        seen, unseen = ((inputs[w].flatten(0, 1).double(), lack[w].flatten(0, 1).double()) for w in (~out, out))
        errors = []
        for share in RIDGES:
            second = seen[0].T @ seen[0]
            ridge = share * second.diagonal().mean() * torch.eye(10)
            errors.append(
                float((unseen[1] - unseen[0] @ torch.linalg.solve(second + ridge, seen[0].T @ seen[1])).square().sum())
            )
        repair = refit(sums_of(inputs, lack, lack), has_bias=False)
        assert repair.ridge == RIDGES[errors.index(min(errors))]
        chosen.add(repair.ridge)
    assert len(chosen) > 2


def test_without_a_held_out_window_the_usual_ridge_is_taken(data):
    inputs, lack, target = (part[: HELD_OUT_EVERY - 1] for part in data)
    assert refit(sums_of(inputs, lack, target), has_bias=True).ridge == USUAL_RIDGE


def test_without_inputs_the_bias_alone_is_refitted(data):
    inputs, lack, target = data
    repair = refit(sums_of(inputs[..., :0], lack, target), has_bias=True)
    torch.testing.assert_close(repair.bias, lack.double().mean((0, 1)), rtol=1e-5, atol=1e-6)
    assert repair.weight.shape == (5, 0)
    assert repair.error_after < repair.error_before
    assert refit(sums_of(inputs[..., :0], lack, target), has_bias=False).error_after == pytest.approx(
        repair.error_before, rel=1e-9
    )


def test_an_input_that_is_always_zero_does_not_break_the_solve(data):
    inputs, lack, target = data
    inputs[..., 2] = 0
    assert torch.isfinite(refit(sums_of(inputs, lack, target), has_bias=False).weight).all()
