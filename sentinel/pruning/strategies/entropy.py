"""Diffuse heads go first: a head that looks everywhere selects little. Attention only."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance


@torch.no_grad()
def rank(calibration: Calibration) -> list[Ranking]:
    """−mean over rows of H(row) = −Σ_j p_j ln p_j, in nats, averaged over a group's query heads.

    Attention maps exist only in the eager implementation, which is used for these passes alone.
    """
    entropy_sums = [torch.zeros(site.num_groups, dtype=torch.float64) for site in calibration.sites()]
    with _eager_attention(calibration.model):
        for batch in calibration.batches():
            maps = calibration.model(input_ids=batch, use_cache=False, output_attentions=True).attentions
            there = (attention for attention in maps if attention is not None)  # a layer may have lost its attention
            for sums, attention_BHTT in zip(entropy_sums, there, strict=True):
                sums.add_(_group_entropy(attention_BHTT, len(sums)), alpha=len(batch))
    return [by_importance(-sums / len(calibration.windows)) for sums in entropy_sums]


def _group_entropy(attention_BHTT: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Mean row entropy per group, (groups,), float64 on the CPU."""
    rows_BHT = torch.special.entr(attention_BHTT.float()).sum(-1)
    heads_H = rows_BHT.double().mean(dim=(0, 2))
    return heads_H.view(num_groups, -1).mean(1).cpu()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
