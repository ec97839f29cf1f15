"""What is put comes back, whole or in part; what is damaged or missing is said so."""

import errno
import hashlib
import subprocess

import pytest

from api.store.errors import ObjectDamaged, ObjectMissing
from api.store.storage import PART_BYTES, Storage, attempt_prefix

CONTENT = bytes(range(256)) * (3 * PART_BYTES // 256) + b"tail"


@pytest.fixture
def storage(tmp_path):
    return Storage((tmp_path / "a folder" / "storage").as_uri())


@pytest.fixture
def put(storage, tmp_path):
    def put(content=CONTENT):
        source = tmp_path / "source with a user's name"
        source.write_bytes(content)
        return storage.put_file(source, attempt_prefix("job_1", 2))

    return put


def stored_file(tmp_path, stored):
    return tmp_path / "a folder" / "storage" / stored.key


def test_a_file_lies_under_its_hash(put, tmp_path):
    stored = put()
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.bytes == len(CONTENT)
    assert stored.key == f"jobs/job_1/attempts/2/{stored.sha256}"
    assert stored_file(tmp_path, stored).read_bytes() == CONTENT


def test_putting_the_same_file_twice_changes_nothing(put):
    assert put() == put()


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, 1), (5, 7), (PART_BYTES + 1, 2 * PART_BYTES), (len(CONTENT) - 1, None), (3, 0)],
)
def test_a_range_is_that_slice_of_the_file(storage, put, offset, length):
    end = None if length is None else offset + length
    assert b"".join(storage.iterate(put().key, offset=offset, length=length)) == CONTENT[offset:end]


def test_a_large_file_comes_in_chunks(storage, put):
    assert max(len(chunk) for chunk in storage.iterate(put().key)) <= 2 * PART_BYTES


def test_an_empty_file_is_a_file(storage, put, tmp_path):
    stored = put(b"")
    assert (stored.bytes, storage.head(stored.key), list(storage.iterate(stored.key))) == (0, 0, [])
    storage.download(stored.key, tmp_path / "empty", stored.sha256)
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_download_is_the_file(storage, put, tmp_path):
    stored = put()
    target = tmp_path / "new" / "folder" / "model.safetensors"
    storage.download(stored.key, target, stored.sha256)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert storage.head(stored.key) == len(CONTENT)


def test_a_damaged_object_is_not_downloaded(storage, put, tmp_path):
    stored = put()
    with stored_file(tmp_path, stored).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(ObjectDamaged, match=stored.sha256):
        storage.download(stored.key, tmp_path / "out" / "file", stored.sha256)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_object_is_said_to_be_missing(storage, tmp_path):
    for read in (
        lambda: storage.head("jobs/0"),
        lambda: list(storage.iterate("jobs/0")),
        lambda: storage.download("jobs/0", tmp_path / "file", "0"),
    ):
        with pytest.raises(ObjectMissing, match="jobs/0"):
            read()
    assert not (tmp_path / "file").exists()


@pytest.fixture
def full_disk(tmp_path):
    """A file system with room for almost nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a file system that is soon full")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_from_other_trouble(full_disk, tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    with pytest.raises(OSError, match="jobs/1") as full:
        Storage(full_disk.as_uri()).put_file(tmp_path / "file", "jobs/1")
    assert full.value.errno == errno.ENOSPC
