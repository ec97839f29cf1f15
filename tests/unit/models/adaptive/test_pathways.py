import pytest
import torch

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.pathways import paired_layer, paired_weights, warm_up
from sentinel.models.families.parts import Part, parameter
from tests.unit.models.conftest import UNITS, make_loaded


def twice_as_wide(family):
    """The family, but for heads of the first layer twice as large, as a global layer may have between sliding ones."""

    class TwiceAsWide(type(family)):
        def parts(self, model, layer, unit):
            parts = super().parts(model, layer, unit)
            if layer or unit == "mlp":
                return parts
            return [Part(module=p.module, side=p.side, widths=tuple(2 * w for w in p.widths)) for p in parts]

    return TwiceAsWide()


def test_layers_are_paired_from_both_ends():
    assert [paired_layer(layer, 6) for layer in range(6)] == [5, 4, 3, 2, 1, 0]
    assert [paired_layer(layer, 5) for layer in (0, 1, 3, 4)] == [4, 3, 1, 0]
    with pytest.raises(ValueError, match="the middle one of 5"):
        paired_layer(2, 5)
    with pytest.raises(ValueError, match="no layer 5"):
        paired_layer(5, 5)


@pytest.mark.parametrize("unit", UNITS)
def test_weights_are_the_paired_group_s(variant, unit):
    model, _, family = make_loaded(variant)
    found = paired_weights(model, family, unit, 0, 1)
    there = family.group_weights(model, family.site(model, 2, unit), 1)
    assert all(map(torch.equal, found, there))
    here = family.group_weights(model, family.site(model, 0, unit), 1)
    assert [piece.shape for piece in found] == [piece.shape for piece in here]
    assert not all(map(torch.equal, found, here))


@pytest.mark.parametrize("unit", UNITS)
def test_a_layer_that_has_lost_every_group_can_have_them_back(variant, unit):
    model, _, family = make_loaded(variant)
    expected = family.group_weights(model, family.site(model, 2, unit), 0)
    family.keep_groups(model, 0, unit, [])
    assert all(map(torch.equal, paired_weights(model, family, unit, 0, 0), expected))


def test_what_is_not_there_or_does_not_fit_is_refused():
    model, _, family = make_loaded("llama-gqa")
    with pytest.raises(ValueError, match="has 4 attention groups, not one of index 4"):
        paired_weights(model, family, "attention", 0, 4)
    with pytest.raises(ValueError, match="the middle one of 3"):
        paired_weights(model, family, "attention", 1, 0)

    with pytest.raises(ValueError, match="cannot have a slice of shape"):
        paired_weights(model, twice_as_wide(family), "attention", 0, 0)


@pytest.mark.parametrize("kind", ["soft", "learnable"])
def test_a_gate_is_warmed_up_from_closed_to_open(kind, tokens):
    """At step 0 the new group's output counts nothing, whatever it is; at the end it counts whole."""
    model, _, family = make_loaded("llama-gqa")
    adaptive = AdaptiveModel(model, family, kind=kind)
    site = adaptive.sites[0]
    columns = slice(2 * site.group_width, 3 * site.group_width)

    def logits():
        with adaptive:
            return model(tokens).logits

    whole = logits()
    assert warm_up(adaptive, "attention", 0, [2], step=0, steps=4) == 0
    closed = logits()
    with torch.no_grad():
        parameter(site.output, "weight")[:, columns] += 1
        assert torch.equal(logits(), closed)
        parameter(site.output, "weight")[:, columns] -= 1
    assert [warm_up(adaptive, "attention", 0, [2], step=step, steps=4) for step in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert adaptive.gate("attention", 0, 2) == pytest.approx(0.75, abs=1e-6)
    assert warm_up(adaptive, "attention", 0, [2], step=9, steps=4) == 1
    torch.testing.assert_close(logits(), whole, atol=1e-5, rtol=0)


def test_hard_gates_and_no_steps_are_refused():
    model, _, family = make_loaded("gpt2")
    with pytest.raises(ValueError, match="0 or 1"):
        warm_up(AdaptiveModel(model, family, kind="hard"), "attention", 0, [0], step=1, steps=4)
    with pytest.raises(ValueError, match="step 1 of 0"):
        warm_up(AdaptiveModel(model, family), "attention", 0, [0], step=1, steps=0)
