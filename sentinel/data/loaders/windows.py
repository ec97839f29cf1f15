"""Packs documents into windows of tokens: BOS, document, BOS, document, …, cut without overlap.

Knows the tokenizer, not the model. No padding, so every token of a window counts.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import torch
from transformers import PreTrainedTokenizerBase

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.errors import DataInvalid, TokenizerInvalid

# Documents tokenized per call: large enough for the fast tokenizer to use its threads, small enough to stop early.
DOCUMENTS_PER_CALL = 64


def pack_windows(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    sequence_length: int,
    limit: int | None,
    use: str = "text",
    isolated: bool = False,
) -> torch.Tensor:
    """Turn documents into at most `limit` full windows; None takes all.

    Reads no more documents than it needs; the rest of a last, unfilled window is dropped.

    Args:
        documents: Texts.
        tokenizer: What makes tokens of them.
        sequence_length: Tokens per window.
        limit: Most windows.
        use: What errors call the text.
        isolated: Whether each start token has to start a document, so that documents can be told apart.

    Returns:
        int64 tensor of shape (windows, sequence_length), on the CPU.

    Raises:
        DataInvalid: The documents do not fill one window; or are to be told apart and hold the start token themselves.
        TokenizerInvalid: The tokenizer has no token that starts a document.
    """
    tokens = _token_stream(documents, tokenizer, isolated=isolated)
    most = sys.maxsize if limit is None else min(limit * sequence_length, sys.maxsize)
    stream = array("q", islice(tokens, most))  # a list of Python's integers would take four times as much memory
    count = len(stream) // sequence_length
    if count == 0:
        raise DataInvalid(
            f"The {use} has {len(stream)} tokens, fewer than one window of sequence_length {sequence_length}."
        )
    return torch.frombuffer(stream, dtype=torch.int64, count=count * sequence_length).view(count, sequence_length)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that starts a document: BOS, or EOS where there is none.

    Raises:
        TokenizerInvalid: It has neither.
    """
    start: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise TokenizerInvalid("The tokenizer has neither a BOS nor an EOS token to part documents with.")
    return start


def _token_stream(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, *, isolated: bool) -> Iterator[int]:
    start = start_token(tokenizer)
    for some in _batched(documents):
        # verbose=False: documents longer than the model's context are fine here, they are cut into windows.
        for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
            if isolated and start in ids:
                raise DataInvalid(
                    f"A document holds the token that starts documents, {tokenizer.decode([start])!r}.",
                    next_step="Part the document there, use a model whose tokenizer has a BOS token, or set "
                    "`data.isolate_documents: false`.",
                )
            yield from chain((start,), ids)


def _batched(documents: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(documents)
    while some := list(islice(iterator, DOCUMENTS_PER_CALL)):
        yield some


def token_batches(windows: torch.Tensor, *, most: int | None = None) -> Iterator[torch.Tensor]:
    """Split (windows, sequence_length) into batches of one window or, at most, FORWARD_TOKENS and `most` tokens."""
    yield from windows.split(max(1, min(FORWARD_TOKENS, most or FORWARD_TOKENS) // windows.shape[1]))
