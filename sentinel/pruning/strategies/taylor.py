"""First-order change of the loss when a group's gate closes."""

import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.calibration import Calibration
from sentinel.utils.metrics import next_token_losses


def importance(calibration: Calibration) -> list[torch.Tensor]:
    """E_window |Σ_t g_t · W_h x_h,t| = E_window |∂loss/∂m_h| at open gates (Michel 2019). In nats, so layers compare.

    The absolute value is taken per window: a trained model sits where the mean gradient is near zero, whatever
    its groups do (`docs/decisions/0005`). Only gates are differentiated: memory is activations, not weight gradients.
    """
    model = calibration.model
    sites = calibration.family.sites(model)
    sums = [torch.zeros(site.num_groups, dtype=torch.float64) for site in sites]
    with Gates(sites, requires_grad=True) as gates:
        for batch in calibration.batches():
            for index, site in enumerate(sites):
                # One row of gates per window, so that one backward pass gives the gradient of each.
                gates.set(index, torch.ones(len(batch), site.num_groups))
            losses = next_token_losses(model(input_ids=batch, use_cache=False).logits, batch).mean(1)
            gradients = torch.autograd.grad(losses.sum(), gates.values)
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient.double().abs().sum(0).cpu())
    return [total / len(calibration.windows) for total in sums]
