"""Finds the training and the evaluation documents that a spec names.

Knows files, hub datasets and the built-in stories; knows nothing of tokens. The two splits
never overlap: they are different files, different splits, or different ends of one file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from sentinel.data.stories import Split, split_stories
from sentinel.errors import DataInvalid
from sentinel.paths import check_roots
from sentinel.spec import BuiltinData, DataSource, HubData, PathData

# The line that parts documents in the plain-text dumps of common corpora.
DOCUMENT_SEPARATOR = "<|endoftext|>"
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Texts of the two splits, in their original order; iterable more than once."""

    train: Iterable[str]
    evaluation: Iterable[str]
    description: str


def load_documents(source: DataSource, *, allowed_roots: Sequence[Path] | None) -> Documents:
    """Open the text that a spec names.

    Args:
        source: The `data` section of a spec.
        allowed_roots: Folders that `source: path` may read from; None allows any.

    Raises:
        DataInvalid: A file, column or split is missing or empty.
        PathNotAllowed: A file lies outside the allowed roots.
    """
    if isinstance(source, BuiltinData):
        return _builtin()
    if isinstance(source, HubData):
        return _from_hub(source)
    return _from_files(source, allowed_roots)


def _builtin() -> Documents:
    return Documents(
        train=_Stories("train", BUILTIN_TRAIN_STORIES),
        evaluation=_Stories("evaluation", BUILTIN_EVALUATION_STORIES),
        description="built-in stories",
    )


# Enough for some hundred thousand training tokens and about a tenth of that held out.
BUILTIN_TRAIN_STORIES = 4000
BUILTIN_EVALUATION_STORIES = 800


@dataclass(frozen=True)
class _Stories:
    """Told again whenever they are read, and no further than they are read: telling them all takes seconds."""

    split: Split
    count: int

    def __iter__(self) -> Iterator[str]:
        return split_stories(self.split, self.count)


def _from_hub(source: HubData) -> Documents:
    def load(split: str) -> Sequence[str]:
        try:
            dataset = datasets.load_dataset(source.id, source.config, revision=source.revision, split=split)
        except (ValueError, FileNotFoundError, ConnectionError) as error:
            raise DataInvalid(f"Cannot load split {split!r} of dataset {source.id!r}: {error}") from error
        return _column(dataset, source.column, f"split {split!r} of {source.id!r}")

    return Documents(
        train=load(source.splits.train), evaluation=load(source.splits.evaluation), description=f"hub:{source.id}"
    )


def _from_files(source: PathData, allowed_roots: Sequence[Path] | None) -> Documents:
    file = check_roots(Path(source.train), allowed_roots)
    train = _read_file(file, source.column)
    if source.evaluation is not None:
        other = check_roots(Path(source.evaluation), allowed_roots)
        if other == file:
            raise DataInvalid(
                f"data.train and data.evaluation are the same file, {file.name}.",
                next_step="Leave `data.evaluation` out to hold back the end of the file, or name another file.",
            )
        evaluation = _read_file(other, source.column)
        return Documents(train=train, evaluation=evaluation, description=Path(source.evaluation).name)
    cut = int(len(train) * (1 - source.held_out))
    if cut in (0, len(train)):
        raise DataInvalid(f"{source.train} has {len(train)} document(s), too few to hold out {source.held_out:.0%}.")
    description = f"last {source.held_out:.0%} of {Path(source.train).name}"
    return Documents(train=train[:cut], evaluation=train[cut:], description=description)


def _read_file(path: Path, column: str) -> list[str]:
    if not path.is_file():
        raise DataInvalid(f"There is no file {path}.")
    if path.suffix == ".txt":
        return _split_text(path)
    builder = _BUILDERS.get(path.suffix)
    if builder is None:
        raise DataInvalid(f"{path.name} is not one of: .txt, {', '.join(_BUILDERS)}.")
    try:
        dataset = datasets.load_dataset(builder, data_files=str(path), split="train")
    except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataInvalid(f"Cannot read {path.name} as {builder}: {error}") from error
    return list(_column(dataset, column, path.name))


def _split_text(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path.name} is not UTF-8 text: {error}") from error
    separator = DOCUMENT_SEPARATOR if DOCUMENT_SEPARATOR in text else "\n\n"
    documents = [part.strip() for part in text.split(separator)]
    documents = [document for document in documents if document]
    if not documents:
        raise DataInvalid(f"{path.name} holds no text.")
    return documents


def _column(dataset: Any, column: str, where: str) -> Sequence[str]:  # noqa: ANN401 - datasets is untyped
    if column not in dataset.column_names:
        raise DataInvalid(f"{where} has no column {column!r}; it has {', '.join(dataset.column_names)}.")
    if len(dataset) == 0:
        raise DataInvalid(f"{where} is empty.")
    if not isinstance(dataset[0][column], str):
        raise DataInvalid(f"Column {column!r} of {where} holds {type(dataset[0][column]).__name__}, not text.")
    texts: Sequence[str] = dataset[column]
    return texts
