"""What can be declared as an upload, told by names and numbers."""

import pytest
from pydantic import ValidationError

from api.uploads.contents import is_archive
from api.uploads.schemas import EXAMPLE, UploadRequest

FILE = {"path": "a.txt", "bytes": 1, "sha256": "0" * 64}


def declare(kind, *paths, **more):
    return UploadRequest.model_validate({"kind": kind, "files": [FILE | {"path": path} for path in paths], **more})


def test_the_example_of_the_description_can_be_declared():
    assert UploadRequest.model_validate(EXAMPLE).kind == "model"


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("text", ["a.txt"]),
        ("text", ["a-1_b.parquet"]),
        ("model", ["model.tar"]),
        ("model", ["model.zip"]),
        ("model", ["config.json", "model-00001-of-00002.safetensors", "merges.txt", "chat_template.jinja", "t.model"]),
    ],
)
def test_what_can_be_declared(kind, paths):
    assert [file.path for file in declare(kind, *paths).declaration().files] == paths


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../a.txt", "a/b.txt", "/a.txt", ".a.txt", "-a.txt", "a\x00.txt", "a\\b.txt", "ä.txt", "a b.txt"],
)
def test_a_path_is_a_plain_name(path):
    with pytest.raises(ValidationError, match="pattern"):
        declare("text", path)


@pytest.mark.parametrize(
    ("kind", "paths", "message"),
    [
        ("text", ["a.txt", "b.txt"], "one file"),
        ("text", ["a.tar"], "one file"),
        ("text", ["a"], "one file"),
        ("model", ["config.json"], "weights in .safetensors"),
        ("model", ["model.safetensors", "other.json"], "has a config.json"),
        ("model", ["config.json", "a.safetensors", "pytorch_model.bin"], "The files of a model are"),
        ("model", ["config.json", "a.safetensors", "modeling_mine.py"], "The files of a model are"),
        ("model", ["config.json", "a.safetensors", "config.json"], "the same path"),
        ("model", ["a.tar", "b.tar"], "The files of a model are"),
    ],
)
def test_what_is_neither_a_model_nor_a_text_is_refused(kind, paths, message):
    with pytest.raises(ValidationError, match=message):
        declare(kind, *paths)


@pytest.mark.parametrize(
    "more",
    [{"bytes": -1}, {"bytes": 2**53}, {"bytes": "1.5"}, {"sha256": "E" * 64}, {"sha256": "0" * 63}, {"mode": 0o777}],
)
def test_a_file_has_a_size_and_a_hash(more):
    with pytest.raises(ValidationError):
        UploadRequest.model_validate({"kind": "text", "files": [FILE | more]})


def test_a_name_is_one_line():
    with pytest.raises(ValidationError):
        declare("text", "a.txt", name="two\nlines")


def test_only_a_model_comes_in_an_archive():
    assert is_archive("model", ["a.tar"])
    assert not is_archive("text", ["a.tar"])
    assert not is_archive("model", ["a.tar", "b.zip"])
