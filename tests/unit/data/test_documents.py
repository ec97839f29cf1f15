import json
import subprocess
import sys

import datasets
import pytest

from sentinel.data.loaders.documents import load_documents
from sentinel.errors import DataInvalid, PathNotAllowed
from sentinel.spec import BuiltinData, PathData

TEXTS = [f"Story {i}.\nIts second line." for i in range(10)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["txt", "separated.txt", "jsonl", "csv", "parquet"])
def file(request, tmp_path):
    path = tmp_path / f"stories.{request.param}"
    table = datasets.Dataset.from_dict({"text": TEXTS})
    writers = {
        "txt": lambda: path.write_text("\n\n".join(TEXTS)),
        "separated.txt": lambda: path.write_text("\n<|endoftext|>\n".join(TEXTS)),
        "jsonl": lambda: path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS)),
        "csv": lambda: table.to_csv(path),
        "parquet": lambda: table.to_parquet(path),
    }
    writers[request.param]()
    return path


def load(path, **settings):
    return load_documents(PathData(train=str(path), **settings), allowed_roots=None)


def test_every_format_gives_the_same_documents(file):
    documents = load(file, held_out=0.3)
    assert list(documents.train) == TEXTS[:7]
    assert list(documents.evaluation) == TEXTS[7:]
    assert list(documents.train) == TEXTS[:7]


def test_a_file_of_its_own_for_evaluation(file, tmp_path):
    other = tmp_path / "held_out.txt"
    other.write_text("Unseen.")
    documents = load(file, evaluation=str(other))
    assert (list(documents.train), list(documents.evaluation)) == (TEXTS, ["Unseen."])


def test_the_same_file_for_both_is_refused(file, tmp_path):
    link = tmp_path / f"link{file.suffix}"
    link.symlink_to(file)
    with pytest.raises(DataInvalid, match="the same file"):
        load(file, evaluation=str(link))


def test_what_is_wrong_is_said(tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"body": "x"}\n' * 3)
    with pytest.raises(DataInvalid, match="no column 'text'; it has body"):
        load(lines)
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"text": 1}\n' * 3)
    with pytest.raises(DataInvalid, match="int, not text"):
        load(numbers)
    with pytest.raises(DataInvalid, match="no file"):
        load(tmp_path / "absent.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n ")
    with pytest.raises(DataInvalid, match="no text"):
        load(empty)
    single = tmp_path / "single.txt"
    single.write_text("One story.")
    with pytest.raises(DataInvalid, match="too few to hold out 10%"):
        load(single)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataInvalid, match="UTF-8"):
        load(binary)
    with pytest.raises(DataInvalid, match=r"not one of: \.txt"):
        load(__file__)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(DataInvalid, match=r"Cannot read broken\.parquet"):
        load(broken)


def test_files_outside_the_allowed_roots_are_refused(file, tmp_path):
    inside = tmp_path / "open"
    inside.mkdir()
    with pytest.raises(PathNotAllowed):
        load_documents(PathData(train=str(file)), allowed_roots=[inside])


def test_builtin_splits_share_no_story():
    documents = load_documents(BuiltinData(), allowed_roots=None)
    assert not set(documents.train) & set(documents.evaluation)


def test_the_name_datasets_belongs_to_the_library_in_any_import_order():
    """A package of ours named `datasets`, or a cycle through it, broke an earlier project."""
    for first, second in (
        ("datasets", "sentinel.data.loaders.documents"),
        ("sentinel.data.loaders.documents", "datasets"),
    ):
        code = f"import {first}, {second}, datasets; assert 'site-packages' in datasets.__file__; datasets.Dataset"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
