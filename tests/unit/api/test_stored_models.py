"""Shapes are told from headers alone, and no header makes the process read much."""

import pytest

from api.store.storage import Storage
from api.stored_models import shape_of
from sentinel.errors import ModelInvalid, ModelNotFound, ModelTooLarge, ModelUnsafe
from sentinel.model_limits import ModelLimits
from sentinel.model_shape import read_shape
from sentinel.paths import BUILTIN_MODELS

LIMITS = ModelLimits()


@pytest.fixture
def put(backing, tmp_path):
    """Store the built-in llama with some files changed or added; returns what `shape_of` needs."""
    storage = Storage(backing.uri)

    def put(**changed):
        contents = {file.name: file.read_bytes() for file in (BUILTIN_MODELS / "llama").iterdir()}
        contents |= {name.replace("__", "."): content for name, content in changed.items()}
        files = []
        for name, content in contents.items():
            (tmp_path / "file").write_bytes(content)
            stored = storage.put_file(tmp_path / "file", "uploads/upl_1")
            files.append({"path": name, "storage_key": stored.key, "bytes": stored.bytes})
        return storage, files

    return put


def test_a_stored_model_has_the_shape_of_its_folder(put):
    assert shape_of(*put(), LIMITS) == read_shape(BUILTIN_MODELS / "llama")


@pytest.mark.parametrize("backing", ["file"], indirect=True)
def test_without_weights_there_is_no_model(put):
    storage, files = put()
    with pytest.raises(ModelNotFound):
        shape_of(storage, [file for file in files if not file["path"].endswith(".safetensors")], LIMITS)


@pytest.mark.parametrize("backing", ["file"], indirect=True)
def test_a_stored_model_is_held_to_the_rules_of_any_other(put):
    with pytest.raises(ModelUnsafe, match="auto_map"):
        shape_of(*put(tokenizer_config__json=b'{"auto_map": {"AutoTokenizer": "evil.Evil"}}'), LIMITS)
    with pytest.raises(ModelTooLarge):
        shape_of(*put(), ModelLimits(parameters=1000))


@pytest.mark.parametrize("backing", ["file"], indirect=True)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        b"\x05" + bytes(7),
        (9_000_000).to_bytes(8, "little") + b"{" * 9_000_000,
        bytes(8) + b"{}",
        b"\xff" * 64,
    ],
)
def test_a_header_that_is_none_is_refused(put, content):
    with pytest.raises(ModelInvalid):
        shape_of(*put(model__safetensors=content), LIMITS)
