"""Tokens whose answers stand earlier in the sequence, and how well a model finds them there.

Every probe has a control: predictions of the same tokens where they could not be taken from before. So a score tells
copying from knowing which tokens are frequent. Knows tokens and models; nothing of pruning.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentinel.data.loaders.windows import token_batches
from sentinel.errors import DataInvalid, LossNotFinite
from sentinel.stress_result import ProbeScore
from sentinel.utils.metrics import next_token_losses

# Tokens of one copy in `repetition`, and pairs in `recall`, at most.
COPY_TOKENS = 32
PAIRS = 8
# `copying` looks at the rarest tokens of the text, as many as make up this share of it.
RARE_SHARE = 0.25
# `recall` of two pairs needs four tokens and another one.
LEAST_TOKENS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """One kind of sequence; every tensor is (sequences, tokens), on the CPU.

    Attributes:
        name: What it is called.
        sequences: int64.
        answers: bool; the tokens that can be foretold from what stands before them, some in every sequence.
        controls: int64; row by row what `sequences` are compared with.
        control_answers: bool; the same tokens in `controls`, where they cannot.
    """

    name: str
    sequences: Tensor
    answers: Tensor
    controls: Tensor
    control_answers: Tensor


def draw_probes(windows: Tensor, *, start: int, special: Collection[int], count: int, seed: int) -> list[Probe]:
    """All probes for a text. They are drawn from its own tokens, so that a model knows every one of them.

    Args:
        windows: int64 (windows, sequence_length); probes are no longer than one.
        start: The token that starts a document, and every sequence.
        special: Ids that are no text.
        count: Sequences per probe of random tokens.
        seed: Decides all of them.

    Raises:
        DataInvalid: The text has too few distinct tokens, or never a rare one twice.
    """
    windows, random = windows.cpu(), torch.Generator().manual_seed(seed)
    flat = windows.flatten()
    words, occurrences = flat[~torch.isin(flat, torch.tensor(sorted({start, *special})))].unique(return_counts=True)
    if len(words) < LEAST_TOKENS:
        raise DataInvalid(
            f"The evaluation text has {len(words)} distinct tokens, too few for probes.",
            next_step="Raise `evaluate.tokens`, or set `evaluate.stress.probes: null`.",
        )
    starts, length = torch.full((count, 1), start), windows.shape[1]
    rarest = words[occurrences.argsort(stable=True)]
    is_rare = occurrences.sort().values.cumsum(0) <= RARE_SHARE * occurrences.sum()
    return [
        repetition(words, starts, length=length, random=random),
        copying(windows, set(rarest[is_rare].tolist()), start=start),
        recall(words, starts, length=length, random=random),
    ]


def repetition(words: Tensor, starts: Tensor, *, length: int, random: torch.Generator) -> Probe:
    """Random tokens, all distinct, twice: all of the second copy but its first token can be foretold (Olsson 2022).

    In the control other random tokens stand in the first copy's place.

    Args:
        words: The tokens to draw from.
        starts: (sequences, 1), what every sequence starts with.
        length: Tokens of a sequence, at most.
        random: Draws.
    """
    size = min(COPY_TOKENS, (length - 1) // 2, len(words))
    copy, other = (_distinct(words, len(starts), size, random=random) for _ in range(2))
    return _at_the_end("repetition", torch.cat([starts, copy, copy], 1), torch.cat([starts, other, copy], 1), size - 1)


def recall(words: Tensor, starts: Tensor, *, length: int, random: torch.Generator) -> Probe:
    """Pairs of random tokens, all distinct, and the first of one pair again: its second follows (Arora 2023).

    In the control another token stands in the asked pair's second place. Arguments as of `repetition`.
    """
    pairs = min(PAIRS, (length - 3) // 2, (len(words) - 1) // 2)
    told, other = _distinct(words, len(starts), 2 * pairs + 1, random=random).split([2 * pairs, 1], dim=1)
    asked = 2 * torch.randint(pairs, (len(starts), 1), generator=random)
    question = torch.cat([told.gather(1, asked), told.gather(1, asked + 1)], 1)
    sequences = torch.cat([starts, told, question], 1)
    controls = torch.cat([starts, told.scatter(1, asked + 1, other), question], 1)
    return _at_the_end("recall", sequences, controls, 1)


def copying(windows: Tensor, rare: Collection[int], *, start: int) -> Probe:
    """The text itself: a rare token that comes again in the same document can be taken from its first occurrence.

    The control is that first occurrence.

    Raises:
        DataInvalid: None comes again.
    """
    first, again = torch.zeros_like(windows, dtype=torch.bool), torch.zeros_like(windows, dtype=torch.bool)
    for row, tokens in enumerate(windows.tolist()):
        places: dict[int, list[int]] = {}
        for place, token in enumerate(tokens):
            if token == start:
                places.clear()
            # Nothing foretells a window's first token.
            if token in rare and place:
                places.setdefault(token, []).append(place)
                if len(places[token]) == 2:
                    first[row, places[token][0]] = again[row, place] = True
    rows = again.any(1)
    if not rows.any():
        raise DataInvalid(
            "No rare token of the evaluation text comes again in the same document and window.",
            next_step="Use longer windows or more text, or set `evaluate.stress.probes: null`.",
        )
    sequences = windows[rows]
    return Probe(
        name="copying", sequences=sequences, answers=again[rows], controls=sequences, control_answers=first[rows]
    )


def score(model: PreTrainedModel, probe: Probe) -> ProbeScore:
    """How well a model foretells the answers, and how much of that it owes to what stands before them.

    Raises:
        LossNotFinite: A loss is infinite or not a number.
    """
    losses, right = _on_average(model, probe.sequences, probe.answers)
    control_losses, _ = _on_average(model, probe.controls, probe.control_answers)
    gains = control_losses - losses
    if not gains.isfinite().all():
        raise LossNotFinite(f"A loss on the probe `{probe.name}` is not finite.")
    return ProbeScore(
        loss=float(losses.mean()),
        control_loss=float(control_losses.mean()),
        gain=float(gains.mean()),
        gain_stderr=float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else None,
        accuracy=float(right.mean()),
    )


def _distinct(words: Tensor, count: int, size: int, *, random: torch.Generator) -> Tensor:
    """(count, size) of the words, distinct in every row."""
    return words[torch.stack([torch.randperm(len(words), generator=random)[:size] for _ in range(count)])]


def _at_the_end(name: str, sequences: Tensor, controls: Tensor, answers: int) -> Probe:
    asked = torch.zeros_like(sequences, dtype=torch.bool)
    asked[:, -answers:] = True
    return Probe(name=name, sequences=sequences, answers=asked, controls=controls, control_answers=asked)


@torch.no_grad()
def _on_average(model: PreTrainedModel, sequences: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Of each sequence's answers the mean loss and the share that is ranked first; float64 (sequences,), on the CPU."""
    losses, right = [], []
    for batch in token_batches(sequences.to(model.device)):
        logits = model(input_ids=batch, use_cache=False).logits
        losses.append(next_token_losses(logits, batch).double().cpu())
        right.append((logits[:, :-1].argmax(-1) == batch[:, 1:]).double().cpu())
    asked = answers[:, 1:].double()
    averaged_losses, share = ((torch.cat(found) * asked).sum(1) / asked.sum(1) for found in (losses, right))
    return averaged_losses, share
