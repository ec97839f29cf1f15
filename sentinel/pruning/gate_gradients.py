"""Derivatives by the gates, one row per calibration window.

Only gates are differentiated: weights stay frozen, so memory is activations, not weight gradients.
"""

from collections.abc import Callable
from itertools import chain

import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.calibration import Calibration

Objective = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def gate_gradients(calibration: Calibration, objective: Objective) -> list[torch.Tensor]:
    """∂objective/∂m per window at open gates: one (windows, num_groups) tensor per site, float64 on the CPU.

    Args:
        calibration: The model and its windows.
        objective: From logits (batch, tokens, vocabulary), token ids (batch, tokens) and the number of the batch
            to one value per window, (batch,).
    """
    model, sites = calibration.model, calibration.sites()
    rows: list[list[torch.Tensor]] = [[] for _ in sites]
    with torch.enable_grad(), Gates(sites, requires_grad=True) as gates:
        # Half a batch at a time, as a backward pass needs what a forward pass drops.
        halves = chain.from_iterable(batch.chunk(2) for batch in calibration.batches())
        for number, batch in enumerate(halves):
            for index, site in enumerate(sites):
                # One row of gates per window, so that one backward pass gives the gradient of each.
                gates.set(index, torch.ones(len(batch), site.num_groups))
            values = objective(model(input_ids=batch, use_cache=False).logits, batch, number)
            for row, gradient in zip(rows, torch.autograd.grad(values.sum(), gates.values), strict=True):
                row.append(gradient.double().cpu())
    return [torch.cat(row) for row in rows]


def sampled_log_likelihoods(logits: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Σ_t log p(y_t) per window, (batch,), for labels y_t drawn from the model's own predictions.

    Args:
        logits: (batch, tokens, vocabulary).
        seed: Of the draw.
    """
    log_p = logits.float().log_softmax(-1)
    labels = draw_labels(log_p.detach(), seed=seed)
    return log_p.gather(-1, labels[..., None]).squeeze(-1).sum(-1)


def draw_labels(log_p: torch.Tensor, *, seed: int) -> torch.Tensor:
    """One token per position, (batch, tokens), from log probabilities (batch, tokens, vocabulary).

    By the inverse of the distribution function: `multinomial` draws a random number per token of the vocabulary.
    """
    below = log_p.exp().cumsum(-1)
    generator = torch.Generator(device=log_p.device).manual_seed(seed)
    draws = torch.rand(*below.shape[:-1], 1, generator=generator, device=below.device) * below[..., -1:]
    return torch.searchsorted(below, draws).clamp_max(below.shape[-1] - 1).squeeze(-1)
