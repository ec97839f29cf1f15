"""Losses of rows against what autograd makes of the textbook's expressions."""

import pytest
import torch
from torch.nn import functional

from sentinel.utils import row_losses
from sentinel.utils.row_losses import cross_entropies, divergences

ROWS, VOCABULARY = 13, 50


@pytest.fixture(params=[3, 1000], ids=["rows in parts", "all at once"])
def rows(request, monkeypatch):
    """(logits, dense logits, targets, a factor per row of the loss)."""
    monkeypatch.setitem(row_losses.NUMBERS_AT_A_TIME, "cpu", request.param * VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    logits, dense = (4 * torch.randn(ROWS, VOCABULARY, generator=generator) for _ in range(2))
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    return logits, dense, targets, torch.randn(ROWS, generator=generator)


def with_gradient(loss, logits, factors):
    logits = logits.clone().requires_grad_()
    losses = loss(logits)
    return losses.detach(), torch.autograd.grad(losses @ factors, logits)[0]


def test_cross_entropy_and_its_gradient(rows):
    logits, _, targets, factors = rows
    found = with_gradient(lambda own: cross_entropies(own, targets), logits, factors)
    expected = with_gradient(lambda own: functional.cross_entropy(own, targets, reduction="none"), logits, factors)
    torch.testing.assert_close(found, expected)


def test_divergence_and_its_gradient(rows):
    logits, dense, _, factors = rows
    found = with_gradient(lambda own: divergences(dense, own), logits, factors)
    p = dense.log_softmax(-1)
    expected = with_gradient(lambda own: (p.exp() * (p - own.log_softmax(-1))).sum(-1), logits, factors)
    torch.testing.assert_close(found, expected)


def test_the_gradient_has_the_type_of_the_logits_and_the_losses_are_float32(rows):
    logits, _, targets, factors = rows
    losses, gradient = with_gradient(lambda own: cross_entropies(own, targets), logits.bfloat16(), factors)
    whole = with_gradient(lambda own: cross_entropies(own, targets), logits.bfloat16().float(), factors)
    assert losses.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(losses, whole[0])
    torch.testing.assert_close(gradient, whole[1].bfloat16(), rtol=0, atol=0)


def test_nothing_is_kept_for_a_gradient_that_nobody_wants(rows):
    logits, _, targets, _ = rows
    assert cross_entropies(logits, targets).grad_fn is None


def test_a_gradient_is_given_once(rows):
    logits, _, targets, _ = rows
    loss = cross_entropies(logits.requires_grad_(), targets).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_takes_the_place_of_the_logits(rows, dtype):
    logits, dense, targets, _ = rows
    for loss in (lambda own: cross_entropies(own, targets), lambda own: divergences(dense, own)):
        own = logits.to(dtype).requires_grad_()
        before = own.detach().clone()
        losses = loss(own)
        assert own.equal(before)
        (gradient,) = torch.autograd.grad(losses.sum(), own)
        assert gradient.data_ptr() == own.data_ptr()


def test_two_losses_cannot_share_logits(rows):
    logits, dense, targets, _ = rows
    own = logits.requires_grad_()
    losses = cross_entropies(own, targets).sum() + divergences(dense, own).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.backward()
