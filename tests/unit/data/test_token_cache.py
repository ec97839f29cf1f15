"""What is kept is found again by the same text only, is never wrong, and does not grow without end."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sentinel.data.loaders.documents import load_documents
from sentinel.data.loaders.splits import Packing, Windows
from sentinel.data.loaders.token_cache import TokenCache, cache_folder, cache_key
from sentinel.data_spec import BuiltinData, PathData
from tests.unit.data.words import word_tokenizer

WINDOWS = Windows(training=torch.arange(40).view(5, 8), evaluation=torch.full((1, 8), 2**31 - 1), left_out=3)
OTHERS = Windows(training=torch.zeros(1, 8).long(), evaluation=torch.zeros(1, 8).long(), left_out=0)
PACKING = Packing(sequence_length=8, training_limit=5, evaluation_limit=1, isolated=False)


@pytest.fixture
def cache(tmp_path):
    return TokenCache(folder=tmp_path / "a folder" / "tokens")


def made_anew():
    raise AssertionError("it was kept")


def assert_same(found, expected=WINDOWS):
    for use, tokens in expected.tensors().items():
        assert torch.equal(found.tensors()[use], tokens)
        assert found.tensors()[use].dtype == torch.int64
    assert found.left_out == expected.left_out


def test_what_was_kept_is_not_made_again(cache):
    assert_same(cache.windows("key", lambda: WINDOWS))
    assert_same(cache.windows("key", made_anew))
    assert_same(cache.windows("other", lambda: OTHERS), OTHERS)
    assert cache.folder.stat().st_mode & 0o077 == 0


def damages():
    """Ways in which a file can go bad, by name."""

    def flip(file):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)

    return {
        "one bit": flip,
        "its end": lambda file: file.write_bytes(file.read_bytes()[:-40]),
        "everything": lambda file: file.write_bytes(b""),
        "its digest": lambda file: save_file({"training": torch.zeros(1, 8)}, file),
        "a tensor": lambda file: save_file({"training": torch.zeros(1, 8)}, file, {"left_out": "0", "sha256": "0"}),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_file_is_told_and_replaced(cache, caplog, damage):
    cache.windows("key", lambda: WINDOWS)
    (file,) = cache.folder.iterdir()
    damages()[damage](file)
    with caplog.at_level(logging.WARNING):
        assert_same(cache.windows("key", lambda: OTHERS), OTHERS)
    assert [record.getMessage().split(" are damaged")[0] for record in caplog.records] == [f"the kept tokens in {file}"]
    assert_same(cache.windows("key", made_anew), OTHERS)


def test_what_was_not_used_for_longest_goes_first(cache):
    for age, key in enumerate(("new", "middle", "old")):
        cache.windows(key, lambda: WINDOWS)
        os.utime(cache.folder / f"{key}.safetensors", (1e9 - age, 1e9 - age))
    cache.windows("old", made_anew)  # now it is the newest
    size = (cache.folder / "old.safetensors").stat().st_size
    replace(cache, largest_bytes=3 * size).windows("last", lambda: WINDOWS)
    assert {file.stem for file in cache.folder.iterdir()} == {"last", "old", "new"}
    replace(cache, largest_bytes=size - 1).windows("none", lambda: WINDOWS)
    assert list(cache.folder.iterdir()) == []


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert_same(TokenCache(folder=tmp_path / "file").windows("key", lambda: WINDOWS))
    assert "are not kept" in caplog.text


def test_a_run_goes_on_where_nothing_can_be_looked_up(cache, caplog):
    """As in the folder of another user; a name that is too long is refused to any."""
    with caplog.at_level(logging.WARNING):
        assert_same(cache.windows("k" * 300, lambda: WINDOWS))
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "the tokens of this text are not kept"
    ]


def test_the_folder_is_the_users_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("SENTINEL_CACHE", "~/own")
    assert cache_folder() == Path("/home/ann/own/tokens")
    monkeypatch.delenv("SENTINEL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/ann/.cache/sentinel/tokens")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/sentinel/tokens")


def test_a_key_is_that_of_one_content_tokenizer_and_packing():
    tokenizer = word_tokenizer(eos_token="<end>")
    key = cache_key("content", tokenizer, PACKING)
    assert key == cache_key("content", word_tokenizer(eos_token="<end>"), replace(PACKING))
    talker = word_tokenizer(eos_token="<end>")
    talker.chat_template = "{{ messages }}"
    changed = [
        cache_key("other", tokenizer, PACKING),
        cache_key("content", word_tokenizer(eos_token="<end>", bos_token="a"), PACKING),
        cache_key("content", talker, PACKING),
        *(
            cache_key("content", tokenizer, replace(PACKING, **change))
            for change in (
                {"sequence_length": 9},
                {"training_limit": None},
                {"evaluation_limit": 2},
                {"isolated": True},
            )
        ),
    ]
    assert len({key, *changed}) == 8


def test_content_is_what_files_hold_and_how_they_are_read(tmp_path, monkeypatch):
    lines = "".join(json.dumps({"text": f"Story {i}.", "other": "x"}) + "\n\n" for i in range(20))

    def content(name, text=lines, **settings):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return load_documents(PathData(train=str(tmp_path / name), **settings), allowed_roots=None).content

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    first = content("a.jsonl")
    assert content("folder/b.jsonl") == first
    changed = [
        content("c.jsonl", lines + lines),
        content("d.txt"),
        content("e.jsonl", column="other"),
        content("f.jsonl", chat=True),
        content("g.jsonl", held_out=0.5),
        content("h.jsonl", evaluation=str(tmp_path / "c.jsonl")),
        content("i.jsonl", evaluation=str(tmp_path / "d.txt")),
    ]
    assert len({first, *changed}) == 8
    assert load_documents(BuiltinData(), allowed_roots=None).content is None
