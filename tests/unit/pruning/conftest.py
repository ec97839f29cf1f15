"""Tiny random models: fast, and with enough structure that groups differ."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

VOCABULARY = 61


def tiny_gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=24, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return _sharpen(GPT2LMHeadModel(config))


def tiny_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _sharpen(LlamaForCausalLM(config))


def _sharpen(model: PreTrainedModel) -> PreTrainedModel:
    """Larger weights and real biases, so that attention is not uniform and every term of a formula counts."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.mul_(6)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture(params=[tiny_gpt2, tiny_llama], ids=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return request.param()


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))
