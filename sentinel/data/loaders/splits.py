"""Windows for the uses of a run's text, none of which sees what another saw.

Calibration takes windows of the training text evenly from all of it, healing in the same way those by which it is
measured, and learns from the others. Evaluation has text of its own; what of it also occurs among the training
documents that were read is left out. Knows nothing of models.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from sentinel.data.loaders.windows import pack_windows
from sentinel.errors import DataInvalid


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """What a text became; int64 tensors of shape (windows, sequence_length), on the CPU.

    Attributes:
        training: For calibration and healing, as `split_training` parts them.
        evaluation: For evaluation.
        left_out: Evaluation documents that were read and left out.
    """

    training: torch.Tensor
    evaluation: torch.Tensor
    left_out: int

    def tensors(self) -> dict[str, torch.Tensor]:
        """The windows by their use."""
        return {"training": self.training, "evaluation": self.evaluation}


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How documents become windows.

    Attributes:
        sequence_length: Tokens per window.
        training_limit: Most windows for training; None takes all.
        evaluation_limit: Most windows for evaluation.
        isolated: As `pack_windows` says.
    """

    sequence_length: int
    training_limit: int | None
    evaluation_limit: int
    isolated: bool


def pack_splits(
    training: Iterable[str], evaluation: Iterable[str], tokenizer: PreTrainedTokenizerBase, packing: Packing
) -> Windows:
    """Pack windows of both, without evaluation documents that are training documents word for word.

    Raises:
        DataInvalid: One of them does not fill a window; for evaluation, with what is left of it.
        TokenizerInvalid: As `pack_windows` says.
    """
    seen = _Seen(training)
    unseen = _Unseen(evaluation, seen.digests)
    pack = partial(
        pack_windows, tokenizer=tokenizer, sequence_length=packing.sequence_length, isolated=packing.isolated
    )
    return Windows(
        training=pack(seen, limit=packing.training_limit, use="training text"),
        evaluation=_pack_unseen(unseen, partial(pack, limit=packing.evaluation_limit, use="evaluation text")),
        left_out=unseen.left_out,
    )


def _pack_unseen(unseen: "_Unseen", pack: Callable[[Iterable[str]], torch.Tensor]) -> torch.Tensor:
    try:
        return pack(unseen)
    except DataInvalid as short:
        if not unseen.left_out:
            raise
        raise DataInvalid(
            f"{short.message} {unseen.left_out} of its documents were left out, as they are training documents too.",
            next_step="Evaluate on text that is not in the training text.",
        ) from short


def split_training(
    windows: torch.Tensor, *, calibration: int, held_out: int, heals: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """From (windows, sequence_length): `calibration` windows, `held_out` others, and the rest, to heal on.

    The first two are taken evenly from the whole text, in order: its beginning need not be like the rest of it.

    Raises:
        DataInvalid: The run heals, and none are left for it.
    """
    taken = calibration + held_out
    if heals and len(windows) <= taken:
        measured = f", and healing keeps {held_out} to be measured by" if held_out else ""
        raise DataInvalid(
            f"The training text fills {len(windows)} window(s) of {windows.shape[1]} tokens. Calibration takes "
            f"{calibration}{measured}, which leaves none to heal on.",
            next_step="Give more training text, lower `prune.calibration_sequences` or `data.sequence_length`, "
            "or set `heal: null`.",
        )
    taken = min(taken, len(windows))
    picked = _evenly(taken, of=len(windows))
    measured_by = torch.zeros(taken, dtype=torch.bool)
    measured_by[_evenly(held_out, of=taken)] = True
    left = torch.ones(len(windows), dtype=torch.bool)
    left[picked] = False
    return windows[picked[~measured_by]], windows[picked[measured_by]], windows[left]


def _evenly(number: int, *, of: int) -> torch.Tensor:
    """So many indices, ascending; not more than there are."""
    return (torch.arange(number) * of).div(max(number, 1), rounding_mode="floor")


class _Seen:
    """Hands documents on and remembers what they were."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = documents
        self.digests: set[bytes] = set()

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            self.digests.add(_digest(document))
            yield document


class _Unseen:
    """Hands on the documents that are not among the seen ones, and counts the others."""

    def __init__(self, documents: Iterable[str], seen: set[bytes]) -> None:
        self._documents = documents
        self._seen = seen
        self.left_out = 0

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            if _digest(document) in self._seen:
                self.left_out += 1
            else:
                yield document


def _digest(document: str) -> bytes:
    # A set of texts would hold the whole text in memory.
    return hashlib.blake2b(document.encode(), digest_size=16).digest()
