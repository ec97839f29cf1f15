"""Conversations as the texts that a tokenizer's chat template makes of them.

Knows the tokenizer; knows nothing of where conversations come from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sentinel.data.loaders.columns import Conversation, Document
from sentinel.errors import DataInvalid, TokenizerInvalid


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents as texts, in their order: texts as they are, conversations written out. Iterable as often as they are.

    Iterating raises TokenizerInvalid when a conversation meets a tokenizer without a chat template, and DataInvalid
    when the template refuses it.
    """

    documents: Iterable[Document]
    tokenizer: PreTrainedTokenizerBase

    def __iter__(self) -> Iterator[str]:
        for document in self.documents:
            yield document if isinstance(document, str) else _write_out(document, self.tokenizer)


def _write_out(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise TokenizerInvalid(
            "The tokenizer has no chat template to write out the conversations of `data.chat` with.",
            next_step="Use a model that was trained on conversations, or a column of text.",
        )
    try:
        text: str = tokenizer.apply_chat_template(conversation, tokenize=False)
    except (TemplateError, ValueError) as error:
        raise DataInvalid(f"The tokenizer's chat template refuses a conversation: {error}") from error
    # Windows begin every document with this token themselves.
    return text.removeprefix(tokenizer.bos_token or "")
