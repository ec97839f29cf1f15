import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import EVEN, UNEVEN, make_loaded, survivors


@pytest.mark.parametrize("removed", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_surgery_equals_masking(variant, removed, tokens):
    model, _, family = make_loaded(variant)
    with Gates(family.sites(model)) as gates:
        for layer, groups in removed.items():
            for group in groups:
                gates.close(layer, group)
        masked = model(tokens).logits
        masked_text = model.generate(tokens[:1], attention_mask=torch.ones_like(tokens[:1]), **_GREEDY)
    before = sum(p.numel() for p in model.parameters())
    expected_loss = sum(_group_size(model, family, layer, group) for layer, gs in removed.items() for group in gs)
    counts = family.counts(model)
    apply_removal(model, family, removed)
    assert (model(tokens).logits - masked).abs().max() <= 1e-5
    assert family.counts(model) == [len(kept) for kept in survivors(counts, removed)]
    assert before - sum(p.numel() for p in model.parameters()) == expected_loss
    for cached in (True, False):
        text = model.generate(tokens[:1], attention_mask=torch.ones_like(tokens[:1]), use_cache=cached, **_GREEDY)
        assert torch.equal(text, masked_text)


def test_cutting_in_two_steps_is_cutting_at_once(variant, tokens):
    once, _, family = make_loaded(variant)
    twice = make_loaded(variant).model
    apply_removal(once, family, {0: [0, 2], 2: [1]})
    apply_removal(twice, family, {0: [2]})
    apply_removal(twice, family, {0: [0], 2: [1], 1: []})
    assert torch.equal(once(tokens).logits, twice(tokens).logits)


def test_removed_groups_stay_removed_while_training(variant, tokens):
    model, _, family = make_loaded(variant)
    apply_removal(model, family, UNEVEN)
    counts, shapes = family.counts(model), [p.shape for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(5):
        loss = model(tokens, labels=tokens).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert (family.counts(model), [p.shape for p in model.parameters()]) == (counts, shapes)


@pytest.mark.parametrize(
    ("removed", "match"),
    [
        ({0: [1], 1: [0, 1, 2, 3]}, "without any group"),
        ({0: [1], 1: [4]}, r"cannot remove \[4\]"),
        ({0: [1], 3: [0]}, "no layer 3"),
    ],
)
def test_a_refused_removal_cuts_nothing(removed, match):
    model, _, family = make_loaded("llama")
    with pytest.raises(ValueError, match=match):
        apply_removal(model, family, removed)
    assert family.counts(model) == [4, 4, 4]


_GREEDY = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


def _group_size(model, family, layer, group):
    """Weights and biases that one group owns."""
    weights = sum(w.numel() for w in family.group_weights(model, layer, group))
    biases = sum(
        part.width * part.blocks
        for part in family.parts(model, layer)
        if part.side == "out" and part.module.bias is not None
    )
    return weights + biases
