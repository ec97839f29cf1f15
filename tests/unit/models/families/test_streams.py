"""What repairs rely on: how units add to the residual stream."""

import pytest
import torch

from sentinel.models.families import family_of
from tests.unit.models.conftest import CONFIGS, make_model


def last_layer_output(model, family, tokens, shifts):
    """Output of the last layer with something added to the output projections of its units."""
    layer = len(family.layers(model)) - 1
    seen, handles = [], []
    for unit, shift in shifts.items():
        output = family.site(model, layer, unit).output
        handles.append(output.register_forward_hook(lambda _, __, out, shift=shift: shift(out)))
    handles.append(family.layers(model)[layer].register_forward_hook(lambda _, __, out: seen.append(out)))
    model(tokens)
    for handle in handles:
        handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_unit_adds_to_the_residual_stream_as_the_family_says(name, tokens):
    model, family = make_model(name), family_of(CONFIGS[name].model_type)
    scale = family.residual_scale(model.config)
    if scale is None:
        return
    shift = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(3))
    nothing = torch.zeros_like
    before = last_layer_output(model, family, tokens, {"mlp": nothing})
    with_attention = last_layer_output(model, family, tokens, {"mlp": nothing, "attention": lambda out: out + shift})
    with_mlp = last_layer_output(model, family, tokens, {"mlp": lambda out: nothing(out) + shift})
    assert (with_attention - before - scale * shift).abs().max() <= 1e-5
    assert (with_mlp - before - scale * shift).abs().max() <= 1e-5
