"""What a model lacks is the gradient of its divergence, and the best slices are what lowers that the most."""

import pytest
import torch

from sentinel.models.families.base import output_weight
from sentinel.pruning.growth.output_errors import OutputError, output_errors
from sentinel.utils.metrics import kl_divergences
from tests.unit.pruning.tiny import calibrate


def divergence(dense, model, windows):
    return kl_divergences(dense(windows).logits, model(windows).logits).sum() / windows.numel()


@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_its_gradient_is_that_of_the_slice(dense, module, windows, unit):
    calibration = calibrate(module.model, windows, unit)
    found = output_errors(calibration, dense, {unit: {0: [[0], [2]], 2: [[1], [0]]}})
    assert set(found) == {(unit, 0), (unit, 2)}
    for layer in (0, 2):
        site = module.family.site(module.model, layer, unit)
        stored = site.output.weight.requires_grad_(True)
        divergence(dense, module.model, windows).backward()
        gradient = stored.grad if output_weight(site).stride() == stored.stride() else stored.grad.T
        groups = [0, 2] if layer == 0 else [1, 0]
        for mine, group in zip(found[unit, layer].gradient, groups, strict=True):
            columns = gradient[:, group * site.group_width : (group + 1) * site.group_width]
            torch.testing.assert_close(mine.float(), columns, rtol=1e-3, atol=1e-6)
        site.output.weight.requires_grad_(False).grad = None


def test_its_moment_is_that_of_the_inputs(dense, module, windows):
    site = module.family.site(module.model, 1, "mlp")
    seen = []
    handle = site.output.register_forward_pre_hook(lambda _, x: seen.append(x[0].flatten(0, 1)))
    module.model(windows)
    handle.remove()
    found = output_errors(calibrate(module.model, windows, "mlp"), dense, {"mlp": {1: [[0, 3]]}})["mlp", 1]
    x = seen[0][:, [0, 3]]
    torch.testing.assert_close(found.moment[0].float(), x.T @ x / len(x), rtol=1e-4, atol=1e-6)


def test_no_other_slice_gains_as_much():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 4, generator=generator).double()
    G, C, step = torch.randn(1, 3, 4, generator=generator).double(), (x.T @ x / 50)[None], 2.5
    error = OutputError(gradient=G, moment=C, step=step)

    def gain(W):
        return float(-(W * G[0]).sum() - (W @ C[0] * W).sum() / (2 * step))

    best = error.slices()[0]
    assert gain(best) == pytest.approx(error.gains()[0], rel=0.05)  # but for the ridge
    others = (best + 0.3 * torch.randn(3, 4, generator=generator).double() for _ in range(20))
    assert all(gain(other) < gain(best) for other in others)
