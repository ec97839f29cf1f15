"""Conversations as the texts that a tokenizer's chat template makes of them.

Knows the tokenizer; knows nothing of where conversations come from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from sentinel.data.loaders.columns import Conversation, Document
from sentinel.errors import DataInvalid, TokenizerInvalid

# Some templates put today's date into every conversation, and the same text would be another one tomorrow. It is always
# the day that Llama's name where there is no clock.
_CLOCK = "strftime_now"
_DAY = {"%d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%y": "24", "%Y": "2024"}
_STOPPED_CLOCK = (
    f"{{% macro {_CLOCK}(format) %}}{{{{ format"
    + "".join(f"|replace({name!r}, {value!r})" for name, value in _DAY.items())
    + " }}{% endmacro %}"
)


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
        text: str = tokenizer.apply_chat_template(conversation, chat_template=_timeless(tokenizer), tokenize=False)
    except Exception as error:  # a template is a program of somebody's
        raise DataInvalid(f"The tokenizer's chat template refuses a conversation: {error}") from error
    # Windows begin every document with this token themselves.
    return text.removeprefix(tokenizer.bos_token or "")


def _timeless(tokenizer: PreTrainedTokenizerBase) -> str:
    template: str = tokenizer.get_chat_template()
    return _STOPPED_CLOCK + template if _CLOCK in template else template
