"""One column of a dataset as documents, texts or conversations, read row by row and checked on the way.

Knows datasets that are mapped from a disk and datasets that are streamed; neither is ever held in memory. Knows
nothing of where they come from, and nothing of tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # of the HTTP library it uses

from sentinel.errors import DataInvalid, HubUnreachable, SentinelError

# Messages, each with its `role` and its `content`.
Conversation = list[dict[str, Any]]
Document = str | Conversation


class Column:
    """The documents of one column, in their order; iterable more than once. Rows without any are passed over.

    Iterating raises DataInvalid when there is no such column, nothing in it, or something else than was asked for; and
    what `reading` says.

    Args:
        dataset: A `datasets.Dataset` or `datasets.IterableDataset`.
        name: The column's name.
        where: What the dataset is, for people.
        chat: Whether the documents are conversations; if not, they are texts.
    """

    def __init__(self, dataset: Any, name: str, where: str, *, chat: bool) -> None:  # noqa: ANN401 - datasets is untyped
        # Streamed lines do not say what they hold before they are read.
        known = name in (dataset.column_names or ())
        self._rows = dataset.select_columns([name]) if known else dataset
        self._name, self._where = name, where
        self._wanted = "a conversation" if chat else "text"
        self._is_wanted = _is_conversation if chat else _is_text

    def __iter__(self) -> Iterator[Document]:
        is_empty = True
        with reading(self._where):
            for number, row in enumerate(self._rows):
                if not _is_blank(value := self._value(row)):
                    is_empty = False
                    yield self._checked(value, number)
        if is_empty:
            raise DataInvalid(f"{self._where} has nothing in column {self._name!r}.")

    def _value(self, row: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the row holds
        if self._name not in row:
            raise DataInvalid(f"{self._where} has no column {self._name!r}; it has {', '.join(row)}.")
        return row[self._name]

    def _checked(self, value: Any, number: int) -> Document:  # noqa: ANN401 - whatever the row holds
        if not self._is_wanted(value):
            raise DataInvalid(
                f"Row {number} of column {self._name!r} of {self._where} holds {_kind(value)}, not {self._wanted}."
            )
        document: Document = value
        return document


def _is_blank(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
        for message in value
    )


def _kind(value: object) -> str:
    """The type, and of a list of objects what they have in them."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"a list of {{{', '.join(value[0])}}}"
    return type(value).__name__


@contextmanager
def reading(where: str) -> Iterator[None]:
    """What datasets and the hub raise when they cannot read.

    Raises:
        DataInvalid: What is there cannot be read.
        HubUnreachable: The hub does not answer.
    """
    try:
        yield
    except (SentinelError, MemoryError):
        raise
    except (ConnectionError, TransportError) as error:
        raise HubUnreachable(f"The hub did not deliver {where}: {error}") from error
    except StopIteration as error:  # of a file of lines without one
        raise DataInvalid(f"{where} is empty.") from error
    except Exception as error:  # readers of so many formats fail in any way
        # Of a file that cannot be parsed it says only that generating failed; its cause knows why.
        raise DataInvalid(f"Cannot read {where}: {error.__cause__ or error}") from error
