"""Measures models under one protocol: loss, KL to the dense model and agreement with it, size and cache.

Knows models and windows of tokens; knows nothing of pruning.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sentinel.data.loaders.windows import token_batches
from sentinel.errors import LossNotFinite
from sentinel.models.dropout import without_dropout
from sentinel.models.families.base import Family
from sentinel.utils.metrics import agreements, kl_divergences, next_token_losses

PROTOCOL = "Mean next-token cross-entropy in nats over windows of sequence_length, no overlap, BOS + document streams."
MAX_LOSS = 700.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same windows.

    Attributes:
        dense_loss: Nats per token.
        pruned_loss: Nats per token.
        kl_to_dense: KL(dense ‖ pruned), nats per token.
        agreement: Share of the positions at which both rank the same next token first.
    """

    dense_loss: float
    pruned_loss: float
    kl_to_dense: float
    agreement: float


@torch.no_grad()
def mean_loss(model: PreTrainedModel, windows: torch.Tensor, *, most: int | None = None) -> float:
    """Nats per token on (windows, sequence_length) tokens; every position but the first of a window counts.

    Args:
        model: A causal language model, in whichever mode.
        windows: On its device.
        most: Tokens that go through it at once, as `token_batches` says.

    Raises:
        LossNotFinite: It is infinite or not a number.
    """
    total = 0.0
    with without_dropout(model):
        for batch in token_batches(windows, most=most):
            logits = model(input_ids=batch, use_cache=False).logits
            # Window by window, here and below: each step on logits takes as much memory as they do.
            losses = [next_token_losses(*window) for window in _by_window(logits, batch)]
            total += float(torch.cat(losses).double().sum())
    return _finite(total / _predicted_tokens(windows))


def compare(dense: PreTrainedModel, pruned: PreTrainedModel, windows: torch.Tensor) -> Comparison:
    """Both losses, KL(dense ‖ pruned) and the agreement in one pass over (windows, sequence_length) tokens.

    Raises:
        LossNotFinite: One of them is infinite or not a number.
    """
    return average(compare_windows(dense, pruned, windows))


@torch.no_grad()
def compare_windows(dense: PreTrainedModel, pruned: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """The same of each window: float64 (windows, 4), in the order in which `Comparison` names them."""
    rows = []
    with without_dropout(dense, pruned):
        for batch in token_batches(windows):
            dense_logits = dense(input_ids=batch, use_cache=False).logits
            pruned_logits = pruned(input_ids=batch, use_cache=False).logits
            for dense_window, pruned_window, tokens in _by_window(dense_logits, pruned_logits, batch):
                terms = (
                    next_token_losses(dense_window, tokens),
                    next_token_losses(pruned_window, tokens),
                    kl_divergences(dense_window, pruned_window),
                    agreements(dense_window, pruned_window),
                )
                rows.append(torch.stack([term.double().mean() for term in terms]))
    return torch.stack(rows)


def average(rows: torch.Tensor) -> Comparison:
    """Of what `compare_windows` found.

    Raises:
        LossNotFinite: A loss or the divergence is infinite or not a number.
    """
    *losses, agreement = rows.mean(0).tolist()
    dense_loss, pruned_loss, kl = map(_finite, losses)
    return Comparison(dense_loss=dense_loss, pruned_loss=pruned_loss, kl_to_dense=kl, agreement=agreement)


def count_parameters(model: PreTrainedModel) -> int:
    """Parameters that exist; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def kv_bytes_per_token(model: PreTrainedModel, family: Family) -> int:
    """Bytes of keys and values that one token adds to the cache, over all layers, in the model's dtype."""
    return 2 * sum(family.counts(model, "attention")) * family.head_dim(model.config) * model.dtype.itemsize


def perplexity(loss: float) -> float:
    """exp(loss)."""
    return math.exp(loss)


def _by_window(*batches: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same window of each batch, as batches of one."""
    return zip(*(batch.split(1) for batch in batches), strict=True)


def _finite(loss: float) -> float:
    # exp of a loss beyond this is no number either.
    if not loss < MAX_LOSS:
        raise LossNotFinite(f"The loss on the evaluation text is {loss}.")
    return loss


def _predicted_tokens(windows: torch.Tensor) -> int:
    return windows.shape[0] * (windows.shape[1] - 1)
