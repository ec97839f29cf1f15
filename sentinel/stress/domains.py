"""Both models' loss on each text. Knows models and windows; nothing of where they come from."""

import math

import torch
from transformers import PreTrainedModel

from sentinel.models.evaluation import average, compare_windows
from sentinel.stress_result import DomainRecord


def on_domain(
    dense: PreTrainedModel, pruned: PreTrainedModel, windows: torch.Tensor, *, name: str, text: str
) -> DomainRecord:
    """Losses, divergence and agreement on (windows, sequence_length) tokens.

    Raises:
        LossNotFinite: One of them is infinite or not a number.
    """
    rows = compare_windows(dense, pruned, windows)
    found = average(rows)
    increases = rows[:, 1] - rows[:, 0]
    return DomainRecord(
        domain=name,
        text=text,
        sequence_length=windows.shape[1],
        windows=len(windows),
        dense_loss=found.dense_loss,
        pruned_loss=found.pruned_loss,
        increase=float(increases.mean()),
        increase_stderr=float(increases.std()) / math.sqrt(len(rows)) if len(rows) > 1 else None,
        kl_to_dense=found.kl_to_dense,
        agreement=found.agreement,
    )
