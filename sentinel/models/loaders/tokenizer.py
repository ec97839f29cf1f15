"""Tokenizers that can pad, and generation that is the same in a padded batch as alone.

GPT-2 and its like have no pad token; end-of-text stands in for it, so the attention mask is always
passed in full: the token alone no longer says what is padding.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from sentinel.errors import DataInvalid, TokenizerInvalid

# Embeddings are rounded up and hold tokens in reserve; a tenth of them is more than that.
_UNUSED_SHARE = 0.1
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_tokenizer(path: Path, *, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Load the folder's tokenizer; pads on the left, with the end token where it has no pad token.

    Args:
        path: The folder.
        config: The model's config, so that the one in the folder is not read again.

    Raises:
        TokenizerInvalid: It is not there, does not load or has no end token.
    """
    # transformers would make an empty tokenizer where it finds no vocabulary.
    if not any((path / name).exists() for name in _VOCABULARY_FILES):
        raise TokenizerInvalid(f"The model has no tokenizer; it needs one of {', '.join(_VOCABULARY_FILES)}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, config=config, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # parsers of many formats raise whatever they like
        raise TokenizerInvalid(f"The tokenizer does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise TokenizerInvalid("The tokenizer has no end-of-text token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Check that the model has an embedding for every id.

    Raises:
        TokenizerInvalid: It has not.
    """
    rows = _rows(model)
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise TokenizerInvalid(
            f"The tokenizer has {len(beyond)} token(s) beyond the {rows} that the model embeds, "
            f"first {token!r} ({number}).",
            next_step="Use the tokenizer that the model was trained with, take out tokens that were added to it, or "
            "make the model larger with `resize_token_embeddings`.",
        )


def doubts(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[str]:
    """What suggests that the two do not belong together, for people; none of it need do harm.

    Not that their end or pad tokens differ: chat models end turns with a token of their own, and no window is padded.
    """
    rows, known = _rows(model), len(tokenizer.get_vocab())
    found = []
    if known < (1 - _UNUSED_SHARE) * rows:
        found.append(f"The tokenizer knows {known} tokens, the model embeds {rows}.")
    own, declared = tokenizer.bos_token_id, getattr(model.config, "bos_token_id", None)
    if None not in (own, declared) and own != declared:
        found.append(
            f"Documents will start with the tokenizer's BOS, {tokenizer.bos_token!r} ({own}); the model's config says "
            f"that BOS is {declared}."
        )
    for name in ("bos_token_id", "eos_token_id"):
        ids = getattr(model.config, name, None)
        if beyond := [number for number in (ids if isinstance(ids, list) else [ids]) if (number or 0) >= rows]:
            found.append(f"The model's config says that {name} is {beyond[0]}; the model embeds {rows} tokens.")
    return [f"{each} Check that this is the model's own tokenizer." for each in found]


def _rows(model: PreTrainedModel) -> int:
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows


@torch.no_grad()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """Greedy continuations, without the prompts and without special tokens.

    Raises:
        DataInvalid: The longest prompt leaves no room for `max_new_tokens` in the model's positions.
    """
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True).to(model.device)
    length = batch["input_ids"].shape[1]
    _check_room(length, max_new_tokens, model)
    tokens = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts: list[str] = tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
    return texts


def _check_room(length: int, max_new_tokens: int, model: PreTrainedModel) -> None:
    room = getattr(model.config, "max_position_embeddings", None)  # ALiBi has no last position
    if room is not None and length + max_new_tokens > room:
        raise DataInvalid(
            f"A prompt of {length} tokens and {max_new_tokens} new ones exceed the model's {room} positions.",
            next_step="Shorten the prompts.",
        )
