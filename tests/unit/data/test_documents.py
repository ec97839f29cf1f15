import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import datasets
import pyarrow as pa
import pytest

from sentinel.data.loaders.documents import load_documents
from sentinel.data_spec import BuiltinData, PathData
from sentinel.errors import DataInvalid, PathNotAllowed

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


@pytest.mark.parametrize(("held_out", "trained_on"), [(0.1, 9), (0.15, 8), (0.8, 2), (0.9, 1)])
def test_so_many_rows_are_held_out_as_the_share_says(file, held_out, trained_on):
    assert list(load(file, held_out=held_out).train) == TEXTS[:trained_on]


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


def write(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "One.\n \nTwo <|endoftext|>.\n\t\n\nThree.",
        " \n One. \n \n Two <|endoftext|>. \n \n Three. \n",
        "One.\r\n\r\nTwo <|endoftext|>.\r\n \r\nThree.\r\n",
        b"\xef\xbb\xbfOne.\n\nTwo <|endoftext|>.\n\nThree.",
    ],
    ids=["spaces and tabs", "as WikiText", "carriage returns", "byte order mark"],
)
def test_plain_text_is_parted_by_blank_lines(tmp_path, content):
    documents = load(write(tmp_path / "stories.txt", content), held_out=0.4)
    assert [*documents.train, *documents.evaluation] == ["One.", "Two <|endoftext|>.", "Three."]


def test_one_line_of_the_separator_is_enough(tmp_path):
    documents = load(write(tmp_path / "stories.txt", "One.\n\nStill one.\n <|endoftext|> \nTwo."), held_out=0.5)
    assert (list(documents.train), list(documents.evaluation)) == (["One.\n\nStill one."], ["Two."])


def test_rows_without_text_are_passed_over(tmp_path):
    lines = [{"text": "One."}, {"text": None}, {"text": " \n"}, {"text": "Two."}, {"text": "Three."}, {"text": ""}]
    documents = load(write(tmp_path / "gaps.jsonl", "\n".join(map(json.dumps, lines))), held_out=0.4)
    assert (list(documents.train), list(documents.evaluation)) == (["One."], ["Two.", "Three."])


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    """Even within one tick of the file system's clock."""
    for word in ("old", "new"):
        path = write(tmp_path / "stories.jsonl", "".join(f'{{"text": "{word} {i}"}}\n' for i in range(10)))
        os.utime(path, (1e9, 1e9))
        assert list(load(path).evaluation) == [f"{word} 9"]


@pytest.mark.parametrize("name", ["part[1].jsonl", "part?.jsonl", "part*.jsonl", "[our]/part1.jsonl"])
def test_a_name_is_no_pattern(tmp_path, name):
    """Another file that it would match, as a pattern, is not read."""
    path = tmp_path / name
    for each in (path, tmp_path / "part1.jsonl", tmp_path / "o" / "part1.jsonl"):
        each.parent.mkdir(exist_ok=True)
        lines = [{"text": f"{each.relative_to(tmp_path)} {i}"} for i in range(10)]
        write(each, "".join(json.dumps(line) + "\n" for line in lines))
    assert list(load(path).evaluation) == [f"{name} 9"]


def test_a_file_is_mapped_and_not_copied(tmp_path):
    """What is held in memory does not grow with the file."""
    path = tmp_path / "large.jsonl"
    with path.open("w") as lines:
        lines.writelines(json.dumps({"text": f"{i} " + "x" * 2000}) + "\n" for i in range(20_000))
    documents = load(path)
    tracemalloc.start()
    allocated = pa.total_allocated_bytes()
    assert [len(some) > 2000 for some in itertools.islice(documents.train, 2)] == [True, True]
    assert sum(1 for _ in documents.evaluation) == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak + pa.total_allocated_bytes() - allocated < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lines.jsonl", '{"body": "x"}\n' * 3, "no column 'text'; it has body"),
        ("numbers.jsonl", '{"text": 1}\n' * 3, "Row 0 of column 'text' of numbers.jsonl holds int, not text"),
        ("numbers.csv", "text\n1\n2\n3\n", "holds int, not text"),
        ("blank.jsonl", '{"text": ""}\n' * 3, "blank.jsonl has nothing in column 'text'"),
        ("empty.jsonl", "", "empty.jsonl as json is empty"),
        ("empty.txt", " \n\n ", "no text"),
        ("single.txt", "One story.", "too few to hold out 10%"),
        ("binary.txt", b"\xff\xfe\x00", "UTF-8"),
        ("notes.md", "text", r"not one of: \.txt"),
        ("broken.parquet", b"no parquet", r"Cannot read broken\.parquet as parquet: .*footer"),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', r"Cannot read broken\.jsonl as json"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, content, message):
    with pytest.raises(DataInvalid, match=message):
        list(load(write(tmp_path / name, content)).train)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataInvalid, match="no file"):
        load(tmp_path / "absent.txt")


def test_a_file_that_cannot_be_looked_for_is_said(tmp_path):
    with pytest.raises(DataInvalid, match=r"Cannot read a+\.txt: .*too long"):
        load(tmp_path / f"{'a' * 300}.txt")


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
