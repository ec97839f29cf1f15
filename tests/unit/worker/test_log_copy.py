"""The copy of a log: as it grows, once more at the end, and never a reason to fail."""

import threading

import pytest

from api.store.errors import StorageUnavailable
from worker import log_copy
from worker.log_copy import LogCopy


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "runner.log"
    path.write_text("begun\n")
    return path


def test_the_log_is_copied_while_it_grows(log, monkeypatch):
    monkeypatch.setattr(log_copy, "COPY_S", 0.01)
    copied, seen = [], threading.Event()

    def store(path):
        copied.append(path.read_text())
        seen.set()

    with LogCopy(log, store):
        assert seen.wait(10)
        assert copied == ["begun\n"]
    assert copied == ["begun\n"]  # nothing has been added since


def test_the_end_is_copied_however_long_it_is(log, monkeypatch):
    monkeypatch.setattr(log_copy, "LARGEST_LIVE_BYTES", 3)
    copied = []
    with LogCopy(log, lambda path: copied.append(path.read_text())):
        log.write_text("begun\nended\n")
    assert copied == ["begun\nended\n"]


def test_a_storage_that_is_away_is_told_and_that_is_all(log, caplog):
    def store(_path):
        raise StorageUnavailable("503")

    with LogCopy(log, store):
        pass
    assert "could not be copied" in caplog.text
