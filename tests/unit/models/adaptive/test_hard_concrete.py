from math import log

import pytest
import torch

from sentinel.models.adaptive.hard_concrete import (
    BETA,
    CLOSED,
    GAMMA,
    OPEN,
    ZETA,
    draw,
    log_alpha_of,
    open_probability,
    settled,
    shifted,
)


def test_the_bounds_are_open_and_closed_to_the_bit():
    assert settled(torch.tensor([CLOSED, OPEN])).tolist() == [0.0, 1.0]


def test_log_alpha_of_is_the_inverse_of_settled():
    gates = torch.linspace(0, 1, 21)
    torch.testing.assert_close(settled(log_alpha_of(gates)), gates, atol=1e-6, rtol=0)


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_draws_are_distributed_as_the_paper_says(log_alpha):
    """P(0) and P(1) in closed form, from the quantiles at which the stretched variable leaves [0, 1]."""
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    gates = draw(torch.tensor(log_alpha), uniform)
    assert float((gates != 0).float().mean()) == pytest.approx(
        float(open_probability(torch.tensor(log_alpha))), abs=1e-3
    )
    edge = (1 - GAMMA) / (ZETA - GAMMA)
    below_one = torch.sigmoid(torch.tensor(BETA * log(edge / (1 - edge)) - log_alpha))
    assert float((gates < 1).float().mean()) == pytest.approx(float(below_one), abs=1e-3)
    assert float(gates.min()) >= 0
    assert float(gates.max()) <= 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_shifted_is_open_to_the_share_and_keeps_the_order(share):
    log_alpha = torch.tensor([40.0, 0.3, -1.0, 0.2, -17.0, 2.0])
    result = shifted(log_alpha, share)
    assert float(open_probability(result).mean()) == pytest.approx(share, abs=1e-5)
    assert (result[log_alpha.argsort()].diff() >= 0).all()


def test_shares_beyond_the_bounds_end_at_them():
    log_alpha = torch.tensor([1.0, -2.0])
    assert shifted(log_alpha, 0.0).tolist() == [CLOSED, CLOSED]
    assert shifted(log_alpha, 1.0).tolist() == pytest.approx([OPEN, OPEN])
