"""Quick norms against transformers' own under autograd."""

import importlib

import pytest
import torch

from sentinel.pruning.fine_tuning.rms_norms import quick_rms_norms

LLAMA_LIKE = {
    "llama": "LlamaRMSNorm",
    "mistral": "MistralRMSNorm",
    "qwen2": "Qwen2RMSNorm",
    "qwen3": "Qwen3RMSNorm",
    "phi3": "Phi3RMSNorm",
    "granite": "GraniteRMSNorm",
    "smollm3": "SmolLM3RMSNorm",
    "olmo2": "Olmo2RMSNorm",
}
OTHERS = {"gemma2": "Gemma2RMSNorm"}
FEATURES = 24


def norm_of(kind):
    name = {**LLAMA_LIKE, **OTHERS}[kind]
    norm = getattr(importlib.import_module(f"transformers.models.{kind}.modeling_{kind}"), name)(FEATURES)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    return norm


def states(*shape):
    return 3 * torch.randn(*shape, FEATURES, generator=torch.Generator().manual_seed(1))


def with_gradients(norm, x, output_gradient):
    x = x.clone().requires_grad_()
    y = norm(x)
    return y.detach(), *torch.autograd.grad(y, [x, norm.weight], output_gradient)


@pytest.mark.parametrize("shape", [(5, 7), (2, 7, 3), (2, 7, 0)], ids=["states", "heads", "no heads"])
@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_same_output_bit_for_bit_and_the_same_gradients(kind, shape):
    norm, x = norm_of(kind), states(*shape)
    # As attention hands it back: heads before time, so with strides.
    output_gradient = torch.randn_like(x.transpose(-2, -3)).transpose(-2, -3)
    y, *gradients = with_gradients(norm, x, output_gradient)
    with quick_rms_norms(norm):
        quick_y, *quick = with_gradients(norm, x, output_gradient)
        assert "_RMSNorm" in str(norm(x).grad_fn)
    assert quick_y.equal(y)
    torch.testing.assert_close(quick, gradients, rtol=1e-5, atol=1e-5)
    assert norm(x).grad_fn.name() == "MulBackward0"


def test_frozen_weights_get_no_gradient():
    norm, x = norm_of("llama").requires_grad_(requires_grad=False), states(5, 7).requires_grad_()
    (expected,) = torch.autograd.grad(norm(x).square().sum(), x)
    with quick_rms_norms(norm):
        norm(x).square().sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-5)
    assert norm.weight.grad is None


@pytest.mark.parametrize(("kind", "dtype"), [("gemma2", torch.float32), ("llama", torch.bfloat16)])
def test_what_is_computed_otherwise_stays_as_it_is(kind, dtype):
    norm, x = norm_of(kind).to(dtype), states(5, 7).to(dtype)
    y, *gradients = with_gradients(norm, x, torch.ones_like(x))
    with quick_rms_norms(norm):
        found, *others = with_gradients(norm, x, torch.ones_like(x))
    assert all(one.equal(other) for one, other in zip([y, *gradients], [found, *others], strict=True))
