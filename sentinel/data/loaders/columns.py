"""One column of a dataset as documents, read row by row and checked on the way.

Knows datasets that are mapped from a disk and datasets that are streamed; neither is ever held in memory. Knows
nothing of where they come from, and nothing of tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # of the HTTP library it uses

from sentinel.errors import DataInvalid, HubUnreachable


class Column:
    """The texts of one column, in their order; iterable more than once. Rows without text are passed over.

    Iterating raises DataInvalid when there is no such column, no text in it, or something else than text; and what
    `reading` says.

    Args:
        dataset: A `datasets.Dataset` or `datasets.IterableDataset`.
        name: The column's name.
        where: What the dataset is, for people.
    """

    def __init__(self, dataset: Any, name: str, where: str) -> None:  # noqa: ANN401 - datasets is untyped
        # Streamed lines do not say what they hold before they are read.
        known = name in (dataset.column_names or ())
        self._rows = dataset.select_columns([name]) if known else dataset
        self._name, self._where = name, where

    def __iter__(self) -> Iterator[str]:
        is_empty = True
        with reading(self._where):
            for number, row in enumerate(self._rows):
                if not _is_blank(value := self._value(row)):
                    is_empty = False
                    yield self._checked(value, number)
        if is_empty:
            raise DataInvalid(f"{self._where} has no text in column {self._name!r}.")

    def _value(self, row: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the row holds
        if self._name not in row:
            raise DataInvalid(f"{self._where} has no column {self._name!r}; it has {', '.join(row)}.")
        return row[self._name]

    def _checked(self, value: Any, number: int) -> str:  # noqa: ANN401 - whatever the row holds
        if not isinstance(value, str):
            kind = type(value).__name__
            raise DataInvalid(f"Row {number} of column {self._name!r} of {self._where} holds {kind}, not text.")
        return value


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


@contextmanager
def reading(where: str) -> Iterator[None]:
    """What datasets and the hub raise when they cannot read.

    Raises:
        DataInvalid: What is there cannot be read.
        HubUnreachable: The hub does not answer.
    """
    try:
        yield
    except (ConnectionError, TransportError) as error:
        raise HubUnreachable(f"The hub did not deliver {where}: {error}") from error
    except StopIteration as error:  # of a file of lines without one
        raise DataInvalid(f"{where} is empty.") from error
    except (ValueError, RuntimeError, OSError, datasets.exceptions.DatasetsError) as error:
        # Of a file that cannot be parsed it says only that generating failed; its cause knows why.
        raise DataInvalid(f"Cannot read {where}: {error.__cause__ or error}") from error
