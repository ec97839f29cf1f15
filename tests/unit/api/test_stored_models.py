"""Shapes are told from headers alone, and no header makes the process read much."""

import pytest

from api.store.storage import Storage
from api.stored_models import shape_of
from sentinel.errors import ModelInvalid, ModelNotFound
from sentinel.model_shape import read_shape
from sentinel.paths import BUILTIN_MODELS

LONG = (9_000_000).to_bytes(8, "little") + b"{" * 9_000_000


@pytest.fixture
def put(backing, tmp_path):
    """Store contents; returns what `shape_of` needs."""
    storage = Storage(backing.uri)

    def put(**contents):
        files = []
        for name, content in contents.items():
            (tmp_path / "file").write_bytes(content)
            stored = storage.put_file(tmp_path / "file", "uploads/upl_1")
            files.append({"path": f"{name}.safetensors", "storage_key": stored.key, "bytes": stored.bytes})
        return storage, files

    return put


def test_a_stored_model_has_the_shape_of_its_folder(put):
    weights = (BUILTIN_MODELS / "llama" / "model.safetensors").read_bytes()
    storage, files = put(model=weights)
    assert shape_of(storage, files) == read_shape(BUILTIN_MODELS / "llama")


def test_without_weights_there_is_no_model(put):
    storage, _ = put()
    with pytest.raises(ModelNotFound):
        shape_of(storage, [{"path": "config.json", "storage_key": "k", "bytes": 2, "sha256": ""}])


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
        shape_of(*put(model=content))
