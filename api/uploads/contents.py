"""Which files a model or a text may consist of, told by their names alone."""

from collections.abc import Collection
from pathlib import PurePosixPath

from api.store.models import UploadKind
from sentinel.model_files import MODEL_SUFFIXES

FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"
CONFIG = "config.json"
WEIGHTS = ".safetensors"
TEXT_SUFFIXES = frozenset({".txt", ".jsonl", ".json", ".csv", ".parquet"})
ARCHIVE_SUFFIXES = frozenset({".tar", ".zip"})


def suffix_of(name: str) -> str:
    """The ending of a file's name."""
    return PurePosixPath(name).suffix


def is_archive(kind: UploadKind, names: Collection[str]) -> bool:
    """Whether an upload consists of one archive, of a model."""
    return kind == UploadKind.MODEL and len(names) == 1 and {*map(suffix_of, names)} <= ARCHIVE_SUFFIXES


def mistake_in(kind: UploadKind, names: Collection[str]) -> str | None:
    """Why files of these names cannot be what they should be; None if they can."""
    if len(set(names)) < len(names):
        return "Two files have the same path."
    suffixes = [suffix_of(name) for name in names]
    if kind == UploadKind.TEXT:
        known = len(names) == 1 and suffixes[0] in TEXT_SUFFIXES
        return None if known else f"A text is one file: {_listed(TEXT_SUFFIXES)}."
    if is_archive(kind, names):
        return None
    if not set(suffixes) <= MODEL_SUFFIXES:
        return f"The files of a model are {_listed(MODEL_SUFFIXES)}; or it is one archive: {_listed(ARCHIVE_SUFFIXES)}."
    if CONFIG not in names or WEIGHTS not in suffixes:
        return f"A model has a {CONFIG} and weights in {WEIGHTS} files."
    return None


def _listed(suffixes: Collection[str]) -> str:
    return ", ".join(sorted(suffixes))
