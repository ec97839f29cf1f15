"""Losses on logits, shifted and without padding. Knows tensors, no model."""

import torch
from torch.nn import functional


def next_token_losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every next token, in nats.

    Args:
        logits: (batch, time, vocabulary); position t predicts token t + 1.
        tokens: int64 (batch, time), no padding.

    Returns:
        float32 (batch, time − 1).
    """
    predicted = logits[:, :-1].float()
    return functional.cross_entropy(predicted.transpose(1, 2), tokens[:, 1:], reduction="none")


def kl_divergences(dense_logits: torch.Tensor, pruned_logits: torch.Tensor) -> torch.Tensor:
    """KL(dense ‖ pruned) of every next-token distribution, in nats.

    Both inputs are (batch, time, vocabulary); the last position predicts beyond the window and
    is left out, so that the same positions count as in `next_token_losses`.

    Returns:
        float32 (batch, time − 1).
    """
    dense = functional.log_softmax(dense_logits[:, :-1].float(), dim=-1)
    pruned = functional.log_softmax(pruned_logits[:, :-1].float(), dim=-1)
    return functional.kl_div(pruned, dense, reduction="none", log_target=True).sum(-1)
