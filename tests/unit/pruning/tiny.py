"""Tiny random models with enough structure that groups differ: one with biases and fused heads, one without."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sentinel.models.families import family_of
from sentinel.models.families.base import Family, Unit
from sentinel.prune_spec import Prune
from sentinel.pruning.calibration import Calibration

VOCABULARY = 61
# Groups of both units that some of the three layers lose.
CUT = {"attention": {0: [1], 1: [0, 3], 2: [2]}, "mlp": {0: [0, 3, 5, 6, 7, 10, 20, 31], 2: list(range(24))}}


def tiny_gpt2(*, layers: int = 3) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=24,
        n_inner=40,
        n_layer=layers,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
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


@torch.no_grad()
def silence(model: PreTrainedModel, family: Family, layer: int, unit: Unit) -> None:
    """Zeros for all of a layer's groups, as the masked form has them for those that were removed."""
    for part in family.parts(model, layer, unit):
        for _, value, _ in part.tensors():
            value.zero_()


def calibrate(model: PreTrainedModel, windows: torch.Tensor, *units: str, seed: int = 5) -> Calibration:
    """What a strategy looks at; both units where none is named."""
    family = family_of(model.config.model_type)
    return Calibration(model=model, family=family, units=units or ("attention", "mlp"), windows=windows, seed=seed)


def prune(**settings: Any) -> Prune:
    """A spec's section: half of the groups, evenly, by a quick score, without a search, unless told otherwise."""
    return Prune.model_validate(
        {
            "target": {"sparsity": 0.5},
            "strategy": "taylor",
            "allocation": "uniform",
            "compensation": "least_squares",
            "search": None,
            **settings,
        }
    )
