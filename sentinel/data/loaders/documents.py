"""Finds the training and the evaluation documents that a spec names.

Knows files, hub datasets and the built-in texts; knows nothing of tokens. The two splits
never overlap: they are different files, different splits, or different ends of one file.
"""

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from sentinel.data.loaders.columns import Column, Document, reading
from sentinel.data.programs import split_programs
from sentinel.data.stories import Split, split_stories
from sentinel.data_spec import BuiltinData, DataSource, HubData, PathData
from sentinel.errors import DataInvalid
from sentinel.paths import check_roots

# The line that parts documents in the plain-text dumps of common corpora; without any, blank lines do.
_SEPARATOR_LINE = re.compile(r"^[ \t]*<\|endoftext\|>[ \t]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n")
# Without it, `datasets` prefers a folder of that name.
HUB_PREFIX = "hf://datasets/"
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Texts or conversations of the two splits, in their original order; iterable more than once.

    Files and datasets are read while they are iterated over, which raises what `Column` says.

    Attributes:
        description: What the evaluation text is, for people.
        content: Digest of both texts and of how they are read; None where reading them is as quick as finding out.
    """

    train: Iterable[Document]
    evaluation: Iterable[Document]
    description: str
    content: str | None


def load_documents(source: DataSource, *, allowed_roots: Sequence[Path] | None) -> Documents:
    """Open the text that a spec names.

    Args:
        source: The `data` section of a spec.
        allowed_roots: Folders that `source: path` may read from; None allows any.

    Raises:
        DataInvalid: A file or split is missing, cannot be read, or is too short to be parted.
        HubUnreachable: The hub does not answer.
        PathNotAllowed: A file lies outside the allowed roots.
    """
    if isinstance(source, BuiltinData):
        return _builtin(source)
    if isinstance(source, HubData):
        return _from_hub(source)
    return _from_files(source, allowed_roots)


def _builtin(source: BuiltinData) -> Documents:
    return Documents(
        train=_Generated(source.id, "train", BUILTIN_TRAIN_DOCUMENTS),
        evaluation=_Generated(source.id, "evaluation", BUILTIN_EVALUATION_DOCUMENTS),
        description=f"built-in {source.id}",
        content=None,
    )


# Enough for some hundred thousand training tokens and about a tenth of that held out.
BUILTIN_TRAIN_DOCUMENTS = 4000
BUILTIN_EVALUATION_DOCUMENTS = 800
_GENERATORS: Mapping[str, Callable[[Split, int], Iterator[str]]] = {
    "stories": split_stories,
    "programs": split_programs,
}


@dataclass(frozen=True)
class _Generated:
    """Told again whenever they are read, and no further than they are read: telling them all takes seconds."""

    kind: str
    split: Split
    count: int

    def __iter__(self) -> Iterator[str]:
        return _GENERATORS[self.kind](self.split, self.count)


def _from_hub(source: HubData) -> Documents:
    where = f"dataset {source.id!r}"
    with reading(where):
        builder = datasets.load_dataset_builder(HUB_PREFIX + source.id, source.config, revision=source.revision)
        if not source.streaming:
            builder.download_and_prepare()

    def column(split: str) -> Column:
        with reading(f"split {split!r} of {where}"):
            dataset = (builder.as_streaming_dataset if source.streaming else builder.as_dataset)(split=split)
        return Column(dataset, source.column, f"split {split!r} of {where}", chat=source.chat)

    return Documents(
        train=column(source.splits.train),
        evaluation=column(source.splits.evaluation),
        description=f"hub:{source.id}",
        content=_content(source, builder.hash),  # the commit
    )


def _from_files(source: PathData, allowed_roots: Sequence[Path] | None) -> Documents:
    file = check_roots(Path(source.train), allowed_roots)
    digests = [_digest(file)]
    train = _open(file, digests[0])
    if source.evaluation is None:
        description = f"last {source.held_out:.0%} of {file.name}"
        train, evaluation = _hold_out(train, source.held_out, file.name)
    else:
        other = check_roots(Path(source.evaluation), allowed_roots)
        _check_other(file, other)
        digests.append(_digest(other))
        description, evaluation = other.name, _open(other, digests[1])
    return Documents(
        train=Column(train, source.column, file.name, chat=source.chat),
        evaluation=Column(evaluation, source.column, description, chat=source.chat),
        description=description,
        content=_content(source, *digests),
    )


def _content(source: HubData | PathData, *contents: str) -> str:
    """Digest of a section in which what its files or its dataset hold stands for where they lie."""
    section = source.model_dump(mode="json", exclude={"train", "evaluation"})
    return hashlib.sha256(json.dumps([section, contents], sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    """Of what the file holds, and of how it is read."""
    with reading(file.name):
        if not file.is_file():
            raise DataInvalid(f"There is no file {file}.")
        if file.suffix not in {".txt", *_BUILDERS}:
            raise DataInvalid(f"{file.name} is not one of: .txt, {', '.join(_BUILDERS)}.")
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() + file.suffix


def _check_other(file: Path, other: Path) -> None:
    if other == file:
        raise DataInvalid(
            f"data.train and data.evaluation are the same file, {file.name}.",
            next_step="Leave `data.evaluation` out to hold back the end of the file, or name another file.",
        )


def _hold_out(dataset: Any, share: float, where: str) -> tuple[Any, Any]:  # noqa: ANN401 - datasets is untyped
    """The rows of a dataset without its last ones, and those."""
    count = len(dataset)
    cut = int(round(count * (1 - share), 6))  # 10 * (1 - 0.9) is less than 1
    if cut in (0, count):
        raise DataInvalid(f"{where} has {count} document(s), too few to hold out {share:.0%}.")
    return dataset.select(range(cut)), dataset.select(range(cut, count))


def _open(file: Path, digest: str) -> Any:  # noqa: ANN401 - datasets is untyped
    """The file's rows, mapped from the Arrow file that `datasets` makes of it once; of plain text in memory."""
    if file.suffix == ".txt":
        return datasets.Dataset.from_dict({"text": _split_text(file)})
    builder = _BUILDERS[file.suffix]
    with reading(f"{file.name} as {builder}"):
        # The digest is in the Arrow file's path: by itself `datasets` looks at the file's time only, and takes what it
        # held before for what it holds. It also takes a name for a pattern, of other files' names.
        return datasets.load_dataset(builder, digest, data_files=glob.escape(str(file)), split="train")


def _split_text(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # without the mark that some editors begin a file with
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path.name} is not UTF-8 text: {error}") from error
    separator = _SEPARATOR_LINE if _SEPARATOR_LINE.search(text) else _BLANK_LINES
    documents = [part.strip() for part in separator.split(text)]
    documents = [document for document in documents if document]
    if not documents:
        raise DataInvalid(f"{path.name} holds no text.")
    return documents
