import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.families.base import output_weight
from tests.unit.models.conftest import UNITS, VARIANTS, make_loaded


def test_open_gates_change_no_bit_of_eager_attention(variant, tokens):
    model, _, family = make_loaded(variant, attention="eager")
    untouched = model(tokens).logits
    with Gates(family.sites(model)):
        assert torch.equal(model(tokens).logits, untouched)


@pytest.mark.parametrize("unit", UNITS)
def test_a_closed_gate_is_a_zeroed_output_slice(variant, unit, tokens):
    model, _, family = make_loaded(variant)
    sites = family.sites(model, [unit])
    untouched = model(tokens).logits
    with Gates(sites) as gates:
        gates.close(1, 2)
        gated = model(tokens).logits
    columns = slice(2 * sites[1].group_width, 3 * sites[1].group_width)
    with torch.no_grad():
        output_weight(sites[1])[:, columns] = 0
    torch.testing.assert_close(gated, model(tokens).logits, atol=1e-6, rtol=0)
    assert (gated - untouched).abs().max() > 1e-4


@pytest.mark.parametrize("variant", [*VARIANTS, "opt"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_row_of_gates_per_sample_is_each_sample_with_its_own_gates(variant, unit, tokens):
    model, _, family = make_loaded(variant)
    sites = family.sites(model, [unit])
    rows = torch.ones(len(tokens), sites[0].num_groups)
    rows[0, 0] = rows[1, 3] = 0
    with Gates(sites) as gates:
        gates.set(0, rows)
        together = model(tokens).logits
        for row, sample, logits in zip(rows, tokens, together, strict=True):
            gates.set(0, row)
            torch.testing.assert_close(model(sample[None]).logits[0], logits, atol=1e-5, rtol=0)


def test_set_opens_what_close_closed(tokens):
    model, _, family = make_loaded("llama-gqa")
    with Gates(family.sites(model)) as gates:
        gates.close(0, 1)
        gates.set(0, torch.ones(4))
        opened = model(tokens).logits
    assert torch.equal(opened, model(tokens).logits)


@pytest.mark.parametrize("unit", UNITS)
def test_the_gradient_of_a_gate_is_the_loss_difference_it_makes(variant, unit, tokens):
    model, _, family = make_loaded(variant, dtype=torch.float64)
    model.requires_grad_(False)
    step = 1e-2  # the norms of Llama compute in float32 whatever the weights are
    with Gates(family.sites(model, [unit]), requires_grad=True) as gates:
        gradient = torch.autograd.grad(model(tokens).logits.square().mean(), gates.values)[2][1]
        losses = []
        for value in (1 + step, 1 - step):
            values = torch.ones_like(gates.values[2])
            values[1] = value
            gates.set(2, values)
            losses.append(model(tokens).logits.square().mean().item())
    assert gates.values[2].requires_grad
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient.item(), rel=5e-3, abs=1e-5)


def test_hooks_are_gone_after_an_error(tokens):
    model, _, family = make_loaded("gpt2")
    untouched = model(tokens).logits
    gates = Gates(family.sites(model))
    gates.close(0, 0)
    with pytest.raises(ZeroDivisionError), gates:
        1 / 0  # noqa: B018 - the error is the point
    assert torch.equal(model(tokens).logits, untouched)
    with gates:
        assert not torch.equal(model(tokens).logits, untouched)


def test_gates_are_not_entered_twice():
    model, _, family = make_loaded("gpt2")
    with Gates(family.sites(model)) as gates, pytest.raises(RuntimeError, match="already"), gates:
        pass


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 1, 4), ()])
def test_gates_of_another_shape_are_refused(shape):
    model, _, family = make_loaded("llama-gqa")
    gates = Gates(family.sites(model))
    with pytest.raises(ValueError, match="has 4 groups"):
        gates.set(0, torch.ones(shape))
