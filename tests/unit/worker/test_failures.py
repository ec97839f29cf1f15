import signal

import pytest

from sentinel.errors import ModelUnsafe
from worker.failures import AttemptFailed, DiskFull, PublishingFailed, RunnerCrashed, RuntimeExceeded, backoff_s
from worker.runner import OutOfMemory


@pytest.mark.parametrize(
    ("cause", "retry"),
    [
        (RunnerCrashed(-signal.SIGKILL), True),
        (PublishingFailed(OSError("gone")), True),
        (RuntimeExceeded(5), False),
        (OutOfMemory("no memory"), False),
        (DiskFull(OSError("full")), False),
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
