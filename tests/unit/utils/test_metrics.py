import math

import torch

from sentinel.utils.metrics import agreements, kl_divergences, next_token_losses


def test_losses_are_shifted():
    """A model that is sure of the right next token has no loss; one that repeats the current token has."""
    tokens = torch.tensor([[0, 1, 2, 3]])
    right = torch.full((1, 4, 5), -50.0)
    right[0, torch.arange(3), tokens[0, 1:]] = 50.0
    assert next_token_losses(right, tokens).abs().max() < 1e-6
    same = torch.full((1, 4, 5), -50.0)
    same[0, torch.arange(4), tokens[0]] = 50.0
    assert next_token_losses(same, tokens).min() > 90


def test_an_indifferent_model_loses_the_log_of_the_vocabulary():
    losses = next_token_losses(torch.zeros(2, 5, 7), torch.zeros(2, 5, dtype=torch.int64))
    torch.testing.assert_close(losses, torch.full((2, 4), math.log(7)))


def test_kl_equals_its_definition_and_vanishes_for_equals():
    torch.manual_seed(0)
    dense, pruned = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    p, q = dense.softmax(-1), pruned.softmax(-1)
    torch.testing.assert_close(kl_divergences(dense, pruned), (p * (p / q).log()).sum(-1)[:, :-1])
    assert kl_divergences(dense, dense).abs().max() < 1e-6


def test_models_agree_where_their_first_choices_do_and_the_last_position_does_not_count():
    dense = torch.eye(4)[torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])]
    pruned = torch.eye(4)[torch.tensor([[0, 2, 2, 0], [1, 2, 1, 0]])] + 5
    assert agreements(dense, pruned).tolist() == [[True, False, True], [False, True, True]]
