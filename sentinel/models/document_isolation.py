"""Keeps the documents of a window apart: no token attends to another document than its own.

Positions start again at every document, and transformers takes that for packed sequences: it masks attention between
them and leaves the windows as they are. A hook on the model brings the positions in, so that calibration, healing and
evaluation need not know. Calls with a cache, as `generate` makes them, are left alone. The hook is no part of the
weights or the config, so a checkpoint has nothing of it.
"""

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sentinel.errors import ModelUnsupported

PROTOCOL = "Attention and positions stay within documents."
# Arguments of a call that says itself which tokens belong together.
_SAYS_ITSELF = ("attention_mask", "position_ids", "past_key_values")


def isolate_documents(model: PreTrainedModel, start: int) -> None:
    """Keep documents apart in every later call that says `use_cache=False` and gives nothing but tokens.

    Args:
        model: The model; copies of it keep documents apart too.
        start: Id of the token that starts a document.

    Raises:
        ModelUnsupported: Its documents still see each other, which is tried out.
    """
    if "position_ids" in inspect.signature(model.forward).parameters:
        model.register_forward_pre_hook(partial(_add_positions, start), with_kwargs=True)
    if not _isolates(model, start):
        raise ModelUnsupported(
            f"Models of type {model.config.model_type!r} cannot keep the documents of a window apart.",
            next_step="Set `data.isolate_documents: false`, or use a model that takes packed sequences.",
        )


def is_isolating(model: nn.Module) -> bool:
    """Whether `isolate_documents` was called with the model, or with what it is a copy of."""
    hooks = model._forward_pre_hooks.values()
    return any(isinstance(hook, partial) and hook.func is _add_positions for hook in hooks)


def document_positions(tokens: Tensor, start: int) -> Tensor:
    """Of each token of (windows, sequence_length), its place in its document, or in the window's part of it."""
    places = torch.arange(tokens.shape[-1], device=tokens.device).expand_as(tokens)
    begins = torch.where(tokens == start, places, 0).cummax(-1).values
    return places - begins


def _add_positions(
    start: int, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    tokens = keywords.get("input_ids")
    if tokens is None or keywords.get("use_cache") is not False:
        return arguments, keywords
    if any(keywords.get(name) is not None for name in _SAYS_ITSELF):
        return arguments, keywords
    return arguments, keywords | {"position_ids": document_positions(tokens, start)}


@torch.no_grad()
def _isolates(model: PreTrainedModel, start: int) -> bool:
    """Whether another first document leaves the logits of the second as they were, bit for bit."""
    a, b, c = [token for token in range(4) if token != start][:3]
    logits = [
        model(input_ids=torch.tensor([[start, *first, start, a, b, c]], device=model.device), use_cache=False).logits
        for first in ([a, b, c], [c, c, b])
    ]
    return torch.equal(*(each[:, 4:] for each in logits))
