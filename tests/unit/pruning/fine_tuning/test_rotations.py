"""Quick rotations against transformers' own under autograd."""

import sys

import pytest
import torch

from sentinel.pruning.fine_tuning.rotations import quick_rotations
from tests.unit.models.conftest import make_model

GROUPED = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "granite", "stablelm", "smollm3", "phi"]
LLAMA_LIKE = [*(f"{kind}-gqa" for kind in GROUPED), "falcon-grouped"]
# Pairs of neighbours, a part of the features, another precision: functions of another kind.
OTHERS = ["cohere-gqa", "phi3", "gpt_neox", "olmo2-gqa", "gpt2"]
TIME, FEATURES = 5, 6


def numbers(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_gradients(file, dtype):
    """Rotated queries and keys, and what two losses give back to them."""
    # As attention has them: heads before time, so with strides.
    q, k = (numbers(2, TIME, heads, FEATURES, seed=heads, dtype=dtype).transpose(1, 2) for heads in (4, 2))
    cos, sin = (numbers(2, TIME, FEATURES, seed=seed, dtype=dtype) for seed in (5, 6))
    q.requires_grad_()
    k.requires_grad_()
    rotated = file.apply_rotary_pos_emb(q, k, cos, sin)
    weights = [numbers(*one.shape, seed=7, dtype=dtype) for one in rotated]
    return [one.detach() for one in rotated], torch.autograd.grad(rotated, (q, k), weights)


@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_same_output_bit_for_bit_and_the_same_gradients(kind):
    model = make_model(kind)
    file = sys.modules[type(model).__module__]
    before = file.apply_rotary_pos_emb
    rotated, gradients = with_gradients(file, torch.float32)
    with quick_rotations(model):
        assert file.apply_rotary_pos_emb is not before
        quick, found = with_gradients(file, torch.float32)
    assert file.apply_rotary_pos_emb is before
    assert all(one.equal(other) and one.stride() == other.stride() for one, other in zip(quick, rotated, strict=True))
    torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-6)


def test_other_precisions_stay_as_they_are():
    model = make_model("llama-gqa")
    file = sys.modules[type(model).__module__]
    rotated, gradients = with_gradients(file, torch.bfloat16)
    with quick_rotations(model):
        quick, found = with_gradients(file, torch.bfloat16)
    assert all(one.equal(other) for one, other in zip([*quick, *found], [*rotated, *gradients], strict=True))


@pytest.mark.parametrize("kind", OTHERS)
def test_functions_of_another_kind_stay(kind):
    model = make_model(kind)
    file = sys.modules[type(model).__module__]
    before = dict(vars(file))
    with quick_rotations(model):
        assert vars(file) == before


def test_an_error_puts_them_back():
    model = make_model("llama-gqa")
    file = sys.modules[type(model).__module__]
    before = file.apply_rotary_pos_emb
    with pytest.raises(RuntimeError), quick_rotations(model):
        raise RuntimeError
    assert file.apply_rotary_pos_emb is before
