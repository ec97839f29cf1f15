"""Attention maps of a model, and how diffuse they are. Maps exist only in the eager implementation of attention."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sentinel.models.families.base import Family
from sentinel.models.hooks import outputs_of


@contextmanager
def attention_maps(model: PreTrainedModel, family: Family, layers: Sequence[int]) -> Iterator[list[list[Any]]]:
    """Per layer, the attention's outputs of every pass while the context lasts; the second of each is the map.

    A map is (batch, query heads, tokens, tokens). Whoever reads an output should take it off the list.
    """
    with _eager_attention(model), ExitStack() as stack:
        yield [stack.enter_context(_showing_its_map(family, family.attention(model, layer))) for layer in layers]


def group_entropies(attention_BHTT: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Mean over rows of H(row) = −Σ_j p_j ln p_j in nats, averaged over a group's heads; (groups,), float64, CPU."""
    rows_BHT = torch.special.entr(attention_BHTT.float()).sum(-1)
    heads_H = rows_BHT.double().mean(dim=(0, 2))
    return heads_H.view(num_groups, -1).mean(1).cpu()


@contextmanager
def _showing_its_map(family: Family, attention: nn.Module) -> Iterator[list[Any]]:
    """The attention's outputs, of which the second is the map.

    Asked of the whole model, transformers would install hooks that it never removes.
    """

    def ask(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        return arguments, family.asking_for_map(keywords)

    handle = attention.register_forward_pre_hook(ask, with_kwargs=True)
    try:
        with outputs_of(attention) as seen:
            yield seen
    finally:
        handle.remove()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Not by `set_attn_implementation`, which some classes refuse with no more than a line in the log."""
    usual = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = usual
