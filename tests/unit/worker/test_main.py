import logging

from worker.__main__ import main


def test_a_worker_that_could_not_store_anything_takes_no_job_and_says_why(bucket, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SENTINEL_HOME", str(tmp_path))
    monkeypatch.setenv("SENTINEL_STORAGE_URI", "s3://not-there")
    with caplog.at_level(logging.ERROR):
        assert main() == 1
    assert "NoSuchBucket" in caplog.text
    assert "Create the bucket" in caplog.text
