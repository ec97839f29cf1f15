from math import ceil

import pytest
import torch

from sentinel.models.families.base import output_weight
from sentinel.pruning.gate_gradients import draw_labels
from sentinel.pruning.sensitivity import SHARE, WINDOWS, output_sensitivity
from tests.unit.pruning.tiny import VOCABULARY, calibrate


def drawn_labels(model, windows, seed):
    with torch.no_grad():
        log_p = model(input_ids=windows).logits.log_softmax(-1)
    return draw_labels(log_p, seed=seed)


def gradients_at(site, model, windows, labels):
    """∂Σ log p(y)/∂(site output), (windows, tokens, out), from a change that is added to the output."""
    change = torch.zeros(*windows.shape, len(output_weight(site)), requires_grad=True)
    handle = site.output.register_forward_hook(lambda _, __, output: output + change)
    log_p = model(input_ids=windows).logits.log_softmax(-1)
    handle.remove()
    (gradient,) = torch.autograd.grad(log_p.gather(-1, labels[..., None]).sum(), change)
    return gradient


def test_labels_are_drawn_as_often_as_they_are_likely():
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    labels = draw_labels(p.log().expand(4, 2000, 4), seed=1)
    assert torch.equal(labels, draw_labels(p.log().expand(4, 2000, 4), seed=1))
    torch.testing.assert_close(labels.flatten().bincount(minlength=4) / 8000, p, atol=0.02, rtol=0)
    assert not (labels == 1).any()


def test_kappa_is_the_mean_squared_gradient_of_sampled_labels(model, calibration, windows):
    windows = windows[: ceil(len(windows) / SHARE)]
    labels = drawn_labels(model, windows, calibration.seed)
    kappas = output_sensitivity(calibration)
    for kappa, site in zip(kappas, calibration.sites(), strict=True):
        gradient = gradients_at(site, model, windows, labels)
        assert float(kappa) == pytest.approx(float(gradient.double().square().sum(-1).mean()), rel=1e-4)


def test_only_a_few_windows_are_looked_at(model):
    enough = WINDOWS * SHARE
    windows = torch.randint(0, VOCABULARY, (enough + SHARE, 8), generator=torch.Generator().manual_seed(3))
    whole, few = (output_sensitivity(calibrate(model, some)) for some in (windows, windows[:enough]))
    assert torch.equal(whole, few)


def test_the_model_stays_frozen_and_without_hooks(model, calibration):
    output_sensitivity(calibration)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
