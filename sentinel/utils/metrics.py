"""Losses and agreement on logits, shifted and without padding. Knows tensors, no model."""

import torch
from torch.nn import functional

from sentinel.utils.row_losses import cross_entropies, divergences


def next_token_losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every next token, in nats.

    Args:
        logits: (batch, time, vocabulary); position t predicts token t + 1. Overwritten when a gradient is taken.
        tokens: int64 (batch, time), no padding.

    Returns:
        float32 (batch, time − 1).
    """
    # Shifted tokens instead of shifted logits, of which the last count nowhere: nothing as large as them is copied.
    targets = tokens.roll(-1, dims=1).flatten()
    return cross_entropies(logits.flatten(0, 1), targets).view(tokens.shape)[:, :-1]


def kl_divergences(dense_logits: torch.Tensor, pruned_logits: torch.Tensor) -> torch.Tensor:
    """KL(dense ‖ pruned) of every next-token distribution, in nats.

    Both inputs are (batch, time, vocabulary); the last position predicts beyond the window and
    is left out, so that the same positions count as in `next_token_losses`.

    Returns:
        float32 (batch, time − 1). No gradient flows to the dense logits; the others are overwritten when one is taken.
    """
    rows = divergences(dense_logits.flatten(0, 1), pruned_logits.flatten(0, 1))
    return rows.view(pruned_logits.shape[:2])[:, :-1]


def top_k_kl_divergences(likely: torch.Tensor, indices: torch.Tensor, pruned_logits: torch.Tensor) -> torch.Tensor:
    """KL(dense ‖ pruned) with all tokens but the dense model's k likeliest counted as one, in nats; at most the whole.

    Args:
        likely: (batch, time, k), the dense model's log-probabilities.
        indices: int64 (batch, time, k), of which tokens.
        pruned_logits: (batch, time, vocabulary).

    Returns:
        float32 (batch, time − 1), as `kl_divergences`.
    """
    pruned = functional.log_softmax(pruned_logits.float(), dim=-1).gather(-1, indices)
    within = functional.kl_div(pruned, likely, reduction="none", log_target=True).sum(-1)
    others, pruned_others = (_rest(log_probabilities) for log_probabilities in (likely, pruned))
    return (within + others * (others / pruned_others).log())[:, :-1]


def _rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """What some probabilities leave of 1; never 0, so that its logarithm is finite."""
    return (1 - log_probabilities.exp().sum(-1)).clamp_min(torch.finfo(torch.float32).eps)


def agreements(dense_logits: torch.Tensor, pruned_logits: torch.Tensor) -> torch.Tensor:
    """Where both models rank the same next token first.

    Both inputs are (batch, time, vocabulary); the same positions count as in `kl_divergences`.

    Returns:
        bool (batch, time − 1).
    """
    dense, pruned = (logits.argmax(-1)[:, :-1] for logits in (dense_logits, pruned_logits))
    return dense == pruned
