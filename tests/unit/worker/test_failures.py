import signal

import pytest

from api.store.errors import StorageUnavailable
from api.store.storage import Storage
from sentinel.errors import DiskFull, ModelUnsafe, OutOfMemory
from worker.attempt import _storing
from worker.failures import AttemptFailed, PublishingFailed, RunnerCrashed, RuntimeExceeded, backoff_s


@pytest.mark.parametrize(
    ("cause", "retry"),
    [
        (RunnerCrashed(-signal.SIGKILL), True),
        (PublishingFailed(OSError("gone")), True),
        (RuntimeExceeded(5), False),
        (OutOfMemory("no memory"), False),
        (StorageUnavailable("503"), True),
        (DiskFull("full"), False),
        (ModelUnsafe("pickle"), False),
    ],
)
def test_only_what_the_service_is_to_blame_for_is_tried_again(cause, retry):
    assert AttemptFailed(cause.as_dict()).retry is retry


def test_a_report_says_what_whose_fault_what_next_and_the_last_lines():
    report = AttemptFailed(RunnerCrashed(-signal.SIGKILL).as_dict()).report(log_tail="last words")
    assert set(report) == {"code", "fault", "message", "next_step", "log_tail"}
    assert "signal 9 (SIGKILL)" in report["message"]
    assert report["log_tail"] == "last words"


def test_backoff_doubles_up_to_five_minutes():
    assert [backoff_s(attempt) for attempt in (1, 2, 3, 20)] == [2, 4, 8, 300]


@pytest.mark.parametrize("status", ["503 Slow Down", "507 Insufficient Storage", "403 Forbidden"])
def test_an_object_store_in_trouble_is_no_full_disk_and_is_tried_again(bucket, object_store, tmp_path, status):
    (tmp_path / "file").write_bytes(b"content")
    storage = Storage(bucket.uri)
    object_store.refuse = lambda _: status
    with pytest.raises(AttemptFailed, match=status[:3]) as failed, _storing():
        storage.put_file(tmp_path / "file", "jobs/1")
    assert (failed.value.error["code"], failed.value.retry) == ("publishing_failed", True)


def test_a_missing_bucket_is_to_be_made(bucket, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(AttemptFailed, match="NoSuchBucket") as failed, _storing():
        Storage("s3://not-there").put_file(tmp_path / "file", "jobs/1")
    assert failed.value.error["next_step"].startswith("Create the bucket")
