"""How much the model minds an error in a site's output: what makes layer errors compare across layers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import ceil

import torch
from transformers import PreTrainedModel

from sentinel.models.families.base import output_weight
from sentinel.models.hooks import outputs_of
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.gate_gradients import sampled_log_likelihoods
from sentinel.pruning.ranking import Ranking

# κ is one number per site: a few windows tell it well enough, as many as one in sixteen of those at hand or this many.
WINDOWS = 8
SHARE = 16


def output_sensitivity(calibration: Calibration) -> torch.Tensor:
    """κ = E‖g‖² per site, (sites,), float64; g = ∂log p(y)/∂(site output) per token, y sampled from the model.

    With sampled labels E[g gᵀ] is the Gauss-Newton matrix of KL(dense ‖ pruned) in the output. Seeded.
    """
    number = min(WINDOWS, ceil(len(calibration.windows) / SHARE))
    few = replace(calibration, windows=calibration.windows[:number])
    model, sites = few.model, few.sites()
    sums = torch.zeros(len(sites), dtype=torch.float64)
    with torch.enable_grad(), differentiable(model), ExitStack() as stack:
        outputs = [stack.enter_context(outputs_of(site.output)) for site in sites]
        for number, batch in enumerate(few.batches()):
            logits = model(input_ids=batch, use_cache=False).logits
            likelihood = sampled_log_likelihoods(logits, seed=few.seed + number).sum()
            gradients = torch.autograd.grad(likelihood, [seen.pop() for seen in outputs])
            sums += torch.tensor([float(gradient.double().square().sum()) for gradient in gradients])
    return sums / few.windows.numel()


@contextmanager
def differentiable(model: PreTrainedModel) -> Iterator[None]:
    """Let gradients flow through a model whose weights are frozen, from its embeddings on."""
    handle = model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_())
    try:
        yield
    finally:
        handle.remove()


def in_nats(rankings: list[Ranking], calibration: Calibration) -> list[Ranking]:
    """Damages that are errors E‖Δy‖² per token, in nats: KL ≈ ½ κ E‖Δy‖² / out, if Δy has no favourite direction."""
    kappas = output_sensitivity(calibration)
    widths = [len(output_weight(site)) for site in calibration.sites()]
    return [
        Ranking(order=ranking.order, damage=0.5 * float(kappa) / width * ranking.damage)
        for ranking, kappa, width in zip(rankings, kappas, widths, strict=True)
    ]
