"""What is put comes back, whole or in part, from a folder and from S3; what is damaged or missing is said so."""

import errno
import hashlib
import subprocess
import sys
import time

import pytest

from api.store.errors import ObjectDamaged, ObjectMissing, StorageUriInvalid
from api.store.storage import PART_BYTES, Storage, attempt_prefix

CONTENT = bytes(range(256)) * 1000
LARGE = bytes(range(256)) * (PART_BYTES // 256) + b"tail"


@pytest.fixture
def storage(backing):
    return Storage(backing.uri)


@pytest.fixture
def put(tmp_path, storage):
    def put(content=CONTENT):
        source = tmp_path / "source with a user's name"
        source.write_bytes(content)
        return storage.put_file(source, attempt_prefix("job_1", 2))

    return put


def test_a_file_lies_under_its_hash(put, backing):
    stored = put()
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.bytes == len(CONTENT)
    assert stored.key == f"jobs/job_1/attempts/2/{stored.sha256}"
    assert backing.stored() == [stored.key]
    assert backing.read(stored.key) == CONTENT


def test_putting_the_same_file_twice_changes_nothing(put):
    assert put() == put()


def test_a_large_file_and_its_ranges_come_in_parts(storage, put):
    key, size = put(LARGE).key, len(LARGE)
    assert [len(part) for part in storage.iterate(key)] == [PART_BYTES, 4]
    for offset, length in [(0, 1), (5, 7), (PART_BYTES - 1, 3), (size - 1, None), (3, 0)]:
        end = None if length is None else offset + length
        assert b"".join(storage.iterate(key, offset=offset, length=length)) == LARGE[offset:end]


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


def test_a_damaged_object_is_not_downloaded(storage, put, backing, tmp_path):
    stored = put(b"right")
    backing.write(stored.key, b"wrong")
    with pytest.raises(ObjectDamaged, match=stored.sha256):
        storage.download(stored.key, tmp_path / "out" / "file", stored.sha256)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_object_is_said_to_be_missing(storage, tmp_path):
    storage.check()
    for read in (
        lambda: storage.head("jobs/0"),
        lambda: list(storage.iterate("jobs/0")),
        lambda: list(storage.iterate("jobs/0", length=1)),
        lambda: storage.download("jobs/0", tmp_path / "file", "0"),
    ):
        with pytest.raises(ObjectMissing, match="jobs/0"):
            read()
    assert not (tmp_path / "file").exists()


def test_old_objects_are_found_and_deleted_also_if_some_are_gone(storage, put, backing):
    kept, old = put(b"kept"), put(b"old")
    backing.write("elsewhere", b"not under the prefix")
    time.sleep(0.01)
    assert list(storage.older_than(3600, prefix="jobs")) == []
    assert sorted(key for keys in storage.older_than(-1, prefix="jobs") for key in keys) == sorted([kept.key, old.key])
    storage.delete([old.key])
    storage.delete([old.key])
    assert backing.stored() == sorted([kept.key, "elsewhere"])
    more = [put(bytes([number])).key for number in range(40)]
    backing.remove(min(more))
    storage.delete(more)
    assert backing.stored() == sorted([kept.key, "elsewhere"])


PUT = "import sys; from pathlib import Path; from api.store.storage import Storage; "
PUT += "Storage(sys.argv[1]).put_file(Path(sys.argv[2]), 'jobs/job_1/attempts/1')"


def test_what_a_killed_writer_left_of_a_file_is_removed_once_it_is_old(tmp_path):
    with (large := tmp_path / "large").open("wb") as file:
        file.truncate(2**30)
    folder = tmp_path / "storage"
    storage = Storage(folder.as_uri())
    with subprocess.Popen([sys.executable, "-c", PUT, folder.as_uri(), large]) as writer:
        while not (found := list(folder.rglob("*#*"))):
            assert writer.poll() is None
            time.sleep(0.001)
        writer.kill()
    assert list(storage.older_than(-1, prefix="jobs")) == []
    storage.drop_unfinished(3600, prefix="jobs")
    storage.drop_unfinished(-1, prefix="uploads")
    assert found[0].exists()
    storage.drop_unfinished(-1, prefix="jobs")
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("uri", ["bucket", "s3://", "s3:///prefix", "s3://a b", "gs://bucket", "/folder", ""])
def test_a_uri_that_names_no_storage_is_refused_with_what_it_should_be(uri):
    with pytest.raises(StorageUriInvalid, match="file:///folder or s3://bucket/prefix"):
        Storage(uri)


@pytest.mark.parametrize("backing", ["file"], indirect=True)
def test_a_folder_signs_no_urls(storage, put):
    assert storage.presign(put(b"").key, valid_s=60) is None


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
