"""Diffuse heads go first: a head that looks everywhere selects little. Attention only."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sentinel.pruning.calibration import Calibration, outputs_of
from sentinel.pruning.ranking import Ranking, by_importance


@torch.no_grad()
def rank(calibration: Calibration) -> list[Ranking]:
    """−mean over rows of H(row) = −Σ_j p_j ln p_j, in nats, averaged over a group's query heads.

    Attention maps exist only in the eager implementation, which is used for these passes alone.
    """
    entropy_sums = [torch.zeros(site.num_groups, dtype=torch.float64) for site in calibration.sites()]
    model, family = calibration.model, calibration.family
    with _eager_attention(model), ExitStack() as stack:
        attentions = [family.attention(model, site.layer) for site in calibration.sites()]
        outputs = [stack.enter_context(_showing_its_map(attention)) for attention in attentions]
        for batch in calibration.batches():
            model(input_ids=batch, use_cache=False)
            for sums, seen in zip(entropy_sums, outputs, strict=True):
                _, attention_BHTT, *_ = seen.pop()
                sums.add_(_group_entropy(attention_BHTT, len(sums)), alpha=len(batch))
    return [by_importance(-sums / len(calibration.windows)) for sums in entropy_sums]


def _group_entropy(attention_BHTT: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Mean row entropy per group, (groups,), float64 on the CPU."""
    rows_BHT = torch.special.entr(attention_BHTT.float()).sum(-1)
    heads_H = rows_BHT.double().mean(dim=(0, 2))
    return heads_H.view(num_groups, -1).mean(1).cpu()


@contextmanager
def _showing_its_map(attention: nn.Module) -> Iterator[list[Any]]:
    """The attention's outputs, of which the second is the map.

    Asked of the whole model, transformers would install hooks that it never removes.
    """

    def ask(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        return arguments, {**keywords, "output_attentions": True}

    handle = attention.register_forward_pre_hook(ask, with_kwargs=True)
    try:
        with outputs_of(attention) as seen:
            yield seen
    finally:
        handle.remove()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
