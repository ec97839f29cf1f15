"""Tokenizers that can pad, and generation that is the same in a padded batch as alone.

GPT-2 and its like have no pad token; end-of-text stands in for it, so the attention mask is always
passed in full: the token alone no longer says what is padding.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from sentinel.errors import DataInvalid, TokenizerInvalid

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
    largest = max(tokenizer.get_vocab().values())
    rows = model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise TokenizerInvalid(f"The tokenizer has ids up to {largest}; the model embeds only {rows}.")


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
