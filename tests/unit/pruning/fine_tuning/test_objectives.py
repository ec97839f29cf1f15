"""Every objective against its definition, and how often the dense model is asked."""

import math

import pytest
import torch

from sentinel.heal_spec import Heal
from sentinel.pruning.fine_tuning.objectives import CachedDistillation, objective_of
from sentinel.utils.metrics import kl_divergences, top_k_kl_divergences
from tests.unit.pruning.tiny import VOCABULARY

ROWS = torch.arange(6)


def value(pruned, windows, **settings):
    model, dense = pruned
    return objective_of(Heal(**settings), dense)(model, windows, ROWS)


def log_probabilities(model, windows, temperature=1.0):
    return torch.log_softmax(model(windows, use_cache=False).logits[:, :-1] / temperature, dim=-1)


def test_cross_entropy_is_of_every_next_token(pruned, windows):
    expected = -log_probabilities(pruned[0], windows).gather(-1, windows[:, 1:, None]).mean()
    torch.testing.assert_close(value(pruned, windows, loss="cross_entropy"), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distillation_is_the_divergence_at_its_temperature(pruned, windows, temperature):
    own, dense = (log_probabilities(model, windows, temperature) for model in pruned)
    expected = temperature**2 * (dense.exp() * (dense - own)).sum(-1).mean()
    torch.testing.assert_close(value(pruned, windows, temperature=temperature), expected)


def test_hidden_states_count_relative_to_the_dense_models(pruned, windows):
    states = [model(windows, use_cache=False, output_hidden_states=True).hidden_states for model in pruned]
    terms = torch.tensor(
        [
            [((mine - theirs) ** 2).sum() / (theirs**2).sum() for mine, theirs in zip(*layer, strict=True)]
            for layer in zip(*states, strict=True)
        ]
    )
    assert (terms[0] == 0).all()  # embeddings are not cut, and are not counted
    expected = value(pruned, windows) + 3 * terms[1:].mean()
    torch.testing.assert_close(value(pruned, windows, hidden_weight=3.0), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_tokens_are_the_whole_divergence(pruned, windows, temperature):
    some = value(pruned, windows, teacher_top_k=VOCABULARY, temperature=temperature)
    torch.testing.assert_close(some, value(pruned, windows, temperature=temperature), rtol=1e-4, atol=1e-6)
    assert torch.equal(value(pruned, windows, teacher_top_k=10**6), value(pruned, windows, teacher_top_k=VOCABULARY))


def test_fewer_tokens_are_the_divergence_with_the_others_as_one():
    generator = torch.Generator().manual_seed(4)
    dense, own = (torch.randn(2, 5, 9, generator=generator) for _ in range(2))
    p, q = dense.softmax(-1), own.softmax(-1)
    likely, indices = dense.log_softmax(-1).topk(3)
    expected = torch.zeros(2, 4)
    for batch in range(2):
        for time in range(4):
            first = indices[batch, time].tolist()
            pairs = [(p[batch, time, i].item(), q[batch, time, i].item()) for i in first]
            pairs.append(tuple(1 - sum(pair[side] for pair in pairs) for side in (0, 1)))
            expected[batch, time] = sum(a * math.log(a / b) for a, b in pairs)
    found = top_k_kl_divergences(likely, indices, own)
    torch.testing.assert_close(found, expected)
    assert (found <= kl_divergences(dense, own) + 1e-6).all()
    assert (found >= 0).all()


def test_the_dense_model_reads_every_window_once(pruned, windows):
    model, dense = pruned
    read = []
    dense.register_forward_pre_hook(lambda _, __, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True)
    objective = CachedDistillation(dense, temperature=1.0, top_k=4)
    first = objective(model, windows[:4], ROWS[:4])
    assert torch.equal(objective(model, windows[:4], ROWS[:4]), first)
    torch.testing.assert_close(
        objective(model, windows[2:], ROWS[2:]),
        CachedDistillation(dense, temperature=1.0, top_k=4)(model, windows[2:], ROWS[2:]),
    )
    assert read == [4, 2, 4]


@pytest.mark.parametrize("settings", [{}, {"hidden_weight": 1.0}, {"teacher_top_k": 5}, {"loss": "cross_entropy"}])
def test_only_the_pruned_model_is_learnt(pruned, windows, settings):
    model, dense = pruned
    model.requires_grad_(True)
    value(pruned, windows, **settings).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in dense.parameters())
