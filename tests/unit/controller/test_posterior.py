import numpy as np
import pytest
from pydantic import ValidationError

from sentinel.controller.posterior import Posterior

TRUE = np.array([0.5, -1.0, 2.0])


def prior(noise=0.5):
    return Posterior.prior(mean=np.array([0.5, 0.0, 0.0]), precision=np.array([1.0, 1e-3, 1e-3]), noise=noise)


def taught(samples, *, noise):
    generator = np.random.default_rng(0)
    posterior = prior(noise=0.05)
    for x in generator.standard_normal((samples, 3)):
        posterior = posterior.seen(x, float(TRUE @ x) + generator.normal(scale=noise))
    return posterior


def test_before_any_sample_it_believes_the_prior():
    assert prior().mean() == pytest.approx([0.5, 0, 0])
    draws = np.array([prior().draw(np.random.default_rng(i))[0] for i in range(1500)])
    # Student's t of two degrees of freedom, centre 0.5 and scale σ: a quarter of it lies above 0.5 + 0.816 σ.
    assert np.median(draws) == pytest.approx(0.5, abs=0.06)
    assert np.quantile(draws, 0.75) == pytest.approx(0.5 + 0.816 * 0.5, abs=0.06)


def test_the_mean_is_that_of_ridge_regression():
    generator = np.random.default_rng(1)
    rows, rewards = generator.standard_normal((9, 3)), generator.standard_normal(9)
    posterior = prior()
    for x, y in zip(rows, rewards, strict=True):
        posterior = posterior.seen(x, float(y))
    penalty = np.diag(np.sqrt([1.0, 1e-3, 1e-3]))
    expected, *_ = np.linalg.lstsq(np.vstack([rows, penalty]), np.append(rewards, [0.5, 0, 0]), rcond=None)
    assert posterior.mean() == pytest.approx(expected)
    assert posterior.samples == 9


@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_draws_spread_as_the_noise_that_it_found_allows(noise):
    posterior = taught(400, noise=noise)
    draws = np.array([posterior.draw(np.random.default_rng(i)) for i in range(600)])
    assert draws.mean(0) == pytest.approx(posterior.mean(), abs=noise / 100)
    # 400 samples of unit variance: each weight is known to about noise / √400.
    assert draws.std(0) == pytest.approx(np.full(3, noise / 20), rel=0.3)
    assert np.abs(posterior.mean() - TRUE).max() < 4 * noise / 20


def test_json_keeps_every_bit():
    posterior = taught(17, noise=0.1)
    assert Posterior.model_validate_json(posterior.model_dump_json()) == posterior


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": [[1.0, 0.0]]}, "square over 3 features"),
        ({"precision": [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]}, "positive definite"),
        ({"precision": [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]}, "symmetric"),
        ({"moment": [1.0, 0.0, float("nan")]}, "finite"),
        ({"squares": 0.2}, "do not go with the moment"),
        ({"moment": [1e200, 0.0, 0.0]}, "do not go with the moment"),
        ({"samples": -1}, "greater than or equal to 0"),
    ],
)
def test_what_no_samples_can_have_taught_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Posterior.model_validate(prior().model_dump() | changes)
