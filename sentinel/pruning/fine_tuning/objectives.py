"""What healing makes smaller: the cross-entropy of the text, or the divergence from the dense model.

Knows logits and hidden states; knows no optimiser. A window's number is what a cache finds it by.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from sentinel.heal_spec import Heal
from sentinel.utils.metrics import kl_divergences, next_token_losses, top_k_kl_divergences

# The mean over a micro-batch's windows, in nats per predicted token, of (model, tokens (windows, sequence_length), the
# windows' numbers (windows,)). Each window has a value of its own, so that those of micro-batches add up to a batch's.
Objective = Callable[[PreTrainedModel, Tensor, Tensor], Tensor]


def objective_of(heal: Heal, dense: PreTrainedModel) -> Objective:
    """What the spec's section asks for; the dense model is not used by cross-entropy."""
    if heal.loss == "cross_entropy":
        return cross_entropy
    if heal.teacher_top_k is not None:
        return CachedDistillation(dense, temperature=heal.temperature, top_k=heal.teacher_top_k)
    return Distillation(dense, temperature=heal.temperature, hidden_weight=heal.hidden_weight)


def cross_entropy(model: PreTrainedModel, tokens: Tensor, _rows: Tensor) -> Tensor:
    """Of every next token."""
    return next_token_losses(model(input_ids=tokens, use_cache=False).logits, tokens).mean()


class Distillation:
    """T² KL(dense ‖ model) of the logits over T (Hinton 2015), and how far the hidden states are apart.

    Args:
        dense: Frozen.
        temperature: T.
        hidden_weight: Of the second term, which is as `hidden_distance` says; 0 leaves it out.
    """

    def __init__(self, dense: PreTrainedModel, *, temperature: float, hidden_weight: float) -> None:
        self._dense = dense
        self._temperature = temperature
        self._hidden_weight = hidden_weight

    def __call__(self, model: PreTrainedModel, tokens: Tensor, _rows: Tensor) -> Tensor:
        """The value for a micro-batch."""
        with_hidden = self._hidden_weight > 0
        with torch.no_grad():
            dense = self._dense(input_ids=tokens, use_cache=False, output_hidden_states=with_hidden)
        own = model(input_ids=tokens, use_cache=False, output_hidden_states=with_hidden)
        divergences = kl_divergences(_cooled(dense.logits, self._temperature), _cooled(own.logits, self._temperature))
        loss = divergences.mean() * self._temperature**2
        if not with_hidden:
            return loss
        return loss + self._hidden_weight * hidden_distance(dense.hidden_states, own.hidden_states)


class CachedDistillation:
    """The same of the dense model's k likeliest tokens, all others counting as one; it reads each window only once.

    Keeps 8 bytes per token and likely token in the host's memory.
    """

    def __init__(self, dense: PreTrainedModel, *, temperature: float, top_k: int) -> None:
        self._dense = dense
        self._temperature = temperature
        self._top_k = min(top_k, dense.config.vocab_size)
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, model: PreTrainedModel, tokens: Tensor, rows: Tensor) -> Tensor:
        """The value for a micro-batch."""
        likely, indices = self._targets(tokens, rows.tolist())
        logits = _cooled(model(input_ids=tokens, use_cache=False).logits, self._temperature)
        return top_k_kl_divergences(likely, indices, logits).mean() * self._temperature**2

    @torch.no_grad()
    def _targets(self, tokens: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and ids, each (windows, sequence_length, k)."""
        new = [place for place, row in enumerate(rows) if row not in self._known]
        if new:
            logits = _cooled(self._dense(input_ids=tokens[new], use_cache=False).logits, self._temperature)
            likely, indices = torch.log_softmax(logits.float(), dim=-1).topk(self._top_k)
            found = zip(likely.cpu(), indices.to("cpu", torch.int32), strict=True)
            self._known.update(zip((rows[place] for place in new), found, strict=True))
        likely, indices = (torch.stack(parts) for parts in zip(*(self._known[row] for row in rows), strict=True))
        return likely.to(tokens.device), indices.to(tokens.device, torch.int64)


def hidden_distance(dense: tuple[Tensor, ...], own: tuple[Tensor, ...]) -> Tensor:
    """‖own − dense‖² / ‖dense‖² of each window behind each layer, averaged; each (windows, time, hidden size).

    The first of the states, the embedding's output, is left out.
    """
    terms = [
        functional.mse_loss(mine.float(), theirs.float(), reduction="none").mean((1, 2))
        / theirs.float().square().mean((1, 2))
        for theirs, mine in zip(dense[1:], own[1:], strict=True)
    ]
    return torch.stack(terms).mean()


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    """A copy only where it is needed: logits are the largest tensors there are."""
    return logits if temperature == 1 else logits / temperature
