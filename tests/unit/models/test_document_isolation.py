"""Documents in one window that must not see each other, on every family; what must stay as it is."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from sentinel.errors import ModelUnsupported
from sentinel.models.document_isolation import document_positions, isolate_documents
from tests.unit.models.conftest import CONFIGS, make_model

START = 0
FIRST, SECOND = [START, 3, 4, 5, 6], [START, 7, 8, 9, 10, 11]
TOKENS = torch.tensor([FIRST + SECOND, SECOND + FIRST])
# ALiBi has no positions to start again; the others build their masks without looking at positions.
UNABLE = {name for name in CONFIGS if name.startswith(("bloom", "falcon", "opt"))}


@torch.no_grad()
def logits(model, tokens, **options):
    return model(input_ids=tokens, use_cache=False, **options).logits


def isolated(name, **options):
    model = make_model(name, **options)
    isolate_documents(model, START)
    return model


def assert_isolated(model):
    """Each document's logits are those that it has alone."""
    found = logits(model, TOKENS)
    for document, part in (
        (FIRST, found[0, :5]),
        (SECOND, found[0, 5:]),
        (SECOND, found[1, :6]),
        (FIRST, found[1, 6:]),
    ):
        torch.testing.assert_close(part, logits(model, torch.tensor([document]))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - UNABLE))
def test_documents_do_not_see_each_other(name):
    assert_isolated(isolated(name))


@pytest.mark.parametrize("name", sorted(UNABLE))
def test_a_model_that_cannot_keep_them_apart_is_refused(name):
    with pytest.raises(ModelUnsupported, match="cannot keep the documents"):
        isolate_documents(make_model(name), START)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama-gqa"])
def test_any_attention_will_do(name, attention):
    assert_isolated(isolated(name, attention=attention))


def test_positions_start_again_at_every_start_token():
    tokens = torch.tensor([[5, 6, START, 7, 8, START, START, 9], [START, 1, 2, 3, 4, 5, 6, 7]])
    assert document_positions(tokens, START).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1], list(range(8))]


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa"])
def test_generating_is_left_alone(name):
    plain, model = make_model(name), isolated(name)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 30}
    for use_cache in (True, False):
        expected = plain.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), use_cache=use_cache, **options)
        assert torch.equal(model.generate(TOKENS, use_cache=use_cache, **options), expected)
    assert not torch.equal(logits(model, TOKENS), logits(plain, TOKENS))


def test_a_copy_stands_for_itself():
    model = isolated("llama-gqa")
    expected = logits(model, TOKENS)
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(logits(duplicate, TOKENS), expected)


def test_a_checkpoint_has_nothing_of_it(tmp_path):
    model = isolated("llama-gqa")
    model.save_pretrained(tmp_path / "isolated")
    make_model("llama-gqa").save_pretrained(tmp_path / "plain")
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "isolated" / file.name).read_bytes() == file.read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "isolated")
    assert torch.equal(logits(loaded, TOKENS), logits(make_model("llama-gqa"), TOKENS))


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for checkpointing in (False, True):
        model = isolated(name).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # the same dropout
        model(input_ids=TOKENS, use_cache=False).logits.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])
