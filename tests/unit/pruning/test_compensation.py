import pytest
import torch

from sentinel.pruning.compensation import MomentAccumulator, refit


@pytest.fixture
def layer():
    """A projection (out 5 × in 8) and correlated inputs with a mean, (tokens, in)."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    inputs = inputs + 0.3 * torch.randn(400, 8, generator=generator) + torch.arange(8) / 4
    return torch.randn(5, 8, generator=generator), torch.randn(5, generator=generator), inputs


def moments_of(inputs):
    accumulator = MomentAccumulator(inputs.shape[-1], device=inputs.device)
    accumulator.add(inputs[:150].view(3, 50, -1))
    accumulator.add(inputs[150:])
    return accumulator.moments()


def measured_error(weight, bias, repair, inputs, kept):
    """Mean squared difference of outputs, by definition."""
    dense = inputs.double() @ weight.double().T + (0 if bias is None else bias.double())
    pruned = inputs.double()[:, kept] @ repair.weight.T + (0 if repair.bias is None else repair.bias)
    energy = (inputs.double() @ weight.double().T).square().sum()
    return float((dense - pruned).square().sum() / energy)


KEPT = torch.tensor([True, False, True, True, False, True, True, True])


def test_accumulated_moments_equal_their_definition(layer):
    _, _, inputs = layer
    moments = moments_of(inputs)
    torch.testing.assert_close(moments.second, inputs.double().T @ inputs.double() / len(inputs))
    torch.testing.assert_close(moments.mean, inputs.double().mean(0))


@pytest.mark.parametrize("with_bias", [True, False])
def test_reported_errors_equal_the_measured_ones(layer, with_bias):
    weight, bias, inputs = layer
    bias = bias if with_bias else None
    repair = refit(weight, bias, moments_of(inputs), KEPT)
    assert measured_error(weight, bias, repair, inputs, KEPT) == pytest.approx(repair.error_after, rel=1e-9)
    zeroed = inputs.double()[:, ~KEPT] @ weight.double()[:, ~KEPT].T
    energy = (inputs.double() @ weight.double().T).square().sum()
    assert float(zeroed.square().sum() / energy) == pytest.approx(repair.error_before, rel=1e-9)


@pytest.mark.parametrize("with_bias", [True, False])
def test_refit_comes_close_to_the_best_linear_fit(layer, with_bias):
    weight, bias, inputs = layer
    repair = refit(weight, bias if with_bias else None, moments_of(inputs), KEPT)
    features = inputs.double()[:, KEPT]
    if with_bias:
        features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    target = inputs.double() @ weight.double().T
    best = torch.linalg.lstsq(features, target).solution
    best_error = float((target - features @ best).square().sum() / target.square().sum())
    assert best_error <= repair.error_after <= 1.05 * best_error
    assert repair.error_after < 0.5 * repair.error_before


@pytest.mark.parametrize("seed", range(20))
def test_refit_never_raises_the_error(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 8, generator=generator) ** 3  # fewer tokens than a stable solve would like
    weight = torch.randn(5, 8, generator=generator)
    bias = torch.randn(5, generator=generator) if seed % 2 else None
    repair = refit(weight, bias, moments_of(inputs.repeat(20, 1)), KEPT)
    assert repair.error_after <= repair.error_before


def test_an_input_that_is_always_zero_does_not_break_the_solve(layer):
    weight, bias, inputs = layer
    inputs = inputs.clone()
    inputs[:, 2] = 0
    repair = refit(weight, bias, moments_of(inputs), KEPT)
    assert torch.isfinite(repair.weight).all()
