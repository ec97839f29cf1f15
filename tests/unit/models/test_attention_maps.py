"""Attention maps are those of the model as it computes without them."""

import pytest
import torch

from sentinel.models.attention_maps import attention_maps
from sentinel.models.families import family_of
from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import CONFIGS, make_model


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_map_is_causal_and_asking_for_it_changes_no_logit(name, tokens):
    model, family = make_model(name), family_of(CONFIGS[name].model_type)
    heads = family.counts(model, "attention")[1]
    apply_removal(model, family, {"attention": {1: [0] if heads > 1 else []}})
    before, implementation = model(tokens, use_cache=False).logits, model.config._attn_implementation
    with attention_maps(model, family, range(3)) as seen:
        asked = model(tokens, use_cache=False).logits
    assert (asked - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    for [(_, attention_BHTT, *_)], groups in zip(seen, family.counts(model, "attention"), strict=True):
        assert attention_BHTT.shape[1] == groups * family.queries_per_kv_head(model.config)
        assert not attention_BHTT.triu(1).any()
        assert (attention_BHTT.sum(-1) - 1).abs().max() <= 1e-5
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(tokens, use_cache=False).logits, before)
