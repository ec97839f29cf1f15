"""What healing makes quicker, in whole models of every family, against transformers' own and autograd."""

import pytest
import torch
from torch.nn import functional

from sentinel.models.families import family_of
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.fine_tuning.rms_norms import quick_rms_norms
from sentinel.pruning.fine_tuning.rotations import quick_rotations
from sentinel.utils.metrics import kl_divergences, next_token_losses
from tests.unit.models.conftest import CONFIGS, UNEVEN, VARIANTS, VOCABULARY, make_model

TOKENS = torch.randint(0, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(3))


def gradients(model, loss_of):
    """Logits, and what the loss gives to each parameter."""
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=TOKENS, use_cache=False).logits
    before = logits.detach().clone()
    loss_of(logits).backward()
    return before, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check(model, quick, textbook):
    logits, expected = gradients(model, textbook)
    with quick_rms_norms(model), quick_rotations(model):
        found_logits, found = gradients(model, quick)
    assert found_logits.equal(logits)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def textbook_cross_entropy(logits):
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), TOKENS[:, 1:].flatten())


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_the_cross_entropy(name):
    check(make_model(name), lambda logits: next_token_losses(logits, TOKENS).mean(), textbook_cross_entropy)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_cut_models(name):
    model = make_model(name)
    apply_removal(model, family_of(model.config.model_type), UNEVEN)
    check(model, lambda logits: next_token_losses(logits, TOKENS).mean(), textbook_cross_entropy)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_the_divergence(name):
    model = make_model(name)
    dense = torch.randn(*TOKENS.shape, model.config.vocab_size, generator=torch.Generator().manual_seed(4))

    def textbook(logits):
        p, q = dense[:, :-1].log_softmax(-1), logits[:, :-1].float().log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean()

    check(model, lambda logits: kl_divergences(dense, logits).mean(), textbook)
