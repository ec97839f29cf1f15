import pytest
import torch

from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import UNEVEN, UNITS, counts_of, make_loaded


def test_surgery_takes_away_what_the_removed_groups_own(variant):
    model, _, family = make_loaded(variant)
    before = sum(p.numel() for p in model.parameters())
    sizes = {(site.unit, site.layer): site.group_parameters for site in family.sites(model)}
    apply_removal(model, family, UNEVEN)
    removed = sum(sizes[unit, l] * len(groups) for unit, layers in UNEVEN.items() for l, groups in layers.items())
    assert before - sum(p.numel() for p in model.parameters()) == removed


def test_an_empty_layer_has_no_parameters_but_the_output_bias(variant):
    model, _, family = make_loaded(variant)
    apply_removal(model, family, {unit: {1: range(family.counts(model, unit)[1])} for unit in UNITS})
    for unit in UNITS:
        assert family.counts(model, unit)[1] == 0
        assert family.site(model, 1, unit).group_parameters == 0
        assert sum(part.size() for part in family.parts(model, 1, unit)) == 0
    apply_removal(model, family, {unit: {1: []} for unit in UNITS})


def test_cutting_in_two_steps_is_cutting_at_once(variant, tokens):
    once, _, family = make_loaded(variant)
    twice = make_loaded(variant).model
    apply_removal(once, family, {"attention": {0: [0, 2], 2: [1]}, "mlp": {1: [3, 5]}})
    apply_removal(twice, family, {"attention": {0: [2]}, "mlp": {1: [3]}})
    apply_removal(twice, family, {"attention": {0: [0], 2: [1], 1: []}, "mlp": {1: [4]}})
    assert torch.equal(once(tokens).logits, twice(tokens).logits)


def test_removed_groups_stay_removed_while_training(variant, tokens):
    model, _, family = make_loaded(variant)
    apply_removal(model, family, UNEVEN)
    apply_removal(model, family, {"attention": {2: range(family.counts(model, "attention")[2])}})
    counts, shapes = counts_of(family, model), [p.shape for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(5):
        loss = model(tokens, labels=tokens).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert (counts_of(family, model), [p.shape for p in model.parameters()]) == (counts, shapes)


@pytest.mark.parametrize(
    ("removed", "match"),
    [
        ({"mlp": {0: [1]}, "attention": {0: [1], 1: [4]}}, r"cannot remove \[4\]"),
        ({"attention": {0: [1]}, "mlp": {3: [0]}}, "no layer 3"),
    ],
)
def test_a_refused_removal_cuts_nothing(removed, match):
    model, _, family = make_loaded("llama-gqa")
    with pytest.raises(ValueError, match=match):
        apply_removal(model, family, removed)
    assert counts_of(family, model) == {"attention": [4, 4, 4], "mlp": [48, 48, 48]}
