"""First-order change of the loss when a group's gate closes."""

import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.calibration import Calibration
from sentinel.utils.metrics import next_token_losses


def importance(calibration: Calibration) -> list[torch.Tensor]:
    """|E Σ_t g_t · W_h x_h,t| = |∂loss/∂m_h| at open gates (Michel 2019). In nats, so layers compare.

    Only gates are differentiated: memory is activations, not weight gradients.
    """
    model = calibration.model
    sites = calibration.family.sites(model)
    sums = [torch.zeros(site.num_groups, dtype=torch.float64) for site in sites]
    with Gates(sites, requires_grad=True) as gates:
        for batch in calibration.batches():
            logits = model(input_ids=batch, use_cache=False).logits
            loss = next_token_losses(logits, batch).mean()
            gradients = torch.autograd.grad(loss, gates.values)
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient.double().cpu(), alpha=len(batch))
    return [(total / len(calibration.windows)).abs() for total in sums]
