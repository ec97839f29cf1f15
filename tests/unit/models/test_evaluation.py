import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sentinel.errors import LossNotFinite
from sentinel.models.evaluation import compare, count_parameters, kv_bytes_per_token, mean_loss
from sentinel.models.families import family_of


@pytest.fixture
def models():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=31, n_positions=4096, n_embd=16, n_layer=2, n_head=4)
    return GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()


@pytest.fixture
def windows():
    return torch.randint(0, 31, (5, 1500), generator=torch.Generator().manual_seed(0))


def test_the_loss_is_that_of_transformers_over_all_windows_at_once(models, windows):
    """Several batches, weighted by tokens, equal one."""
    with torch.no_grad():
        expected = float(models[0](input_ids=windows, labels=windows).loss)
    assert mean_loss(models[0], windows) == pytest.approx(expected, rel=1e-6)


def test_a_comparison_holds_both_losses_the_kl_and_the_agreement(models, windows):
    dense, pruned = models
    comparison = compare(dense, pruned, windows)
    assert comparison.dense_loss == pytest.approx(mean_loss(dense, windows))
    assert comparison.pruned_loss == pytest.approx(mean_loss(pruned, windows))
    with torch.no_grad():
        p, q = (model(input_ids=windows).logits[:, :-1].log_softmax(-1).double() for model in models)
    assert comparison.kl_to_dense == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    same = [
        sorted(range(31), key=p[window, place].tolist().__getitem__)[-1]
        == sorted(range(31), key=q[window, place].tolist().__getitem__)[-1]
        for window in range(5)
        for place in range(1499)
    ]
    assert 0 < sum(same) < len(same)
    assert comparison.agreement == pytest.approx(sum(same) / len(same))
    itself = compare(dense, dense, windows)
    assert itself.kl_to_dense == pytest.approx(0, abs=1e-7)
    assert itself.agreement == 1


def test_dropout_is_off_in_any_mode(models, windows):
    expected = mean_loss(models[0], windows), compare(*models, windows)
    models[0].train()
    models[1].transformer.h[0].train()
    modes = [module.training for model in models for module in model.modules()]
    assert (mean_loss(models[0], windows), compare(*models, windows)) == expected
    assert [module.training for model in models for module in model.modules()] == modes


def test_sizes_are_counted_on_what_is_there(models):
    model, family = models[0], family_of("gpt2")
    dense = count_parameters(model)
    assert kv_bytes_per_token(model, family) == 2 * 2 * 16 * 4
    family.keep_groups(model, 0, "attention", [0, 2, 3])
    assert kv_bytes_per_token(model, family) == 2 * (12 + 16) * 4
    assert dense - count_parameters(model) == 4 * (3 * 16 + 3) + 4 * 16


def test_a_loss_that_is_no_number_stops(models, windows):
    with torch.no_grad():
        models[0].transformer.wte.weight[5] = math.nan
    with pytest.raises(LossNotFinite):
        mean_loss(models[0], windows)
    with pytest.raises(LossNotFinite):
        compare(models[1], models[0], windows)
