"""Log lines: what they carry, what they never show, and that both forms survive whatever a user sent."""

import json
import logging
import subprocess
import sys
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from sentinel.utils import logs

KEY = "sntl_0123456789abcdef_Zm9v-_YmFy"
TOKEN = "hf_" + "aB3" * 12


@pytest.fixture
def lines():
    """What was logged, as (text, JSON) for each record."""
    found = []

    class Both(logging.Handler):
        def emit(self, record):
            found.append((logs.TextFormatter().format(record), json.loads(logs.JsonFormatter().format(record))))

    logger = logging.getLogger("tests.logs")
    handler = Both()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)


def say(message="m", /, *arguments, **fields):
    """Log one line in a context of its own."""

    def bound():
        logs.bind(**fields)
        logging.getLogger("tests.logs").warning(message, *arguments)

    copy_context().run(bound)


def fail(message):
    """Log an exception that says so."""
    try:
        int(message)
    except ValueError as error:
        error.args = (message,)
        logging.getLogger("tests.logs").exception("it failed")


def test_a_line_of_json_says_when_how_bad_who_what_and_of_what(lines):
    say("%d of %d", 1, 2, job_id="job_1", attempt=3, trace_id=None)
    (_, line) = lines[0]
    assert line == {
        "time": line["time"], "level": "warning", "logger": "tests.logs", "message": "1 of 2",
        "job_id": "job_1", "attempt": 3,
    }  # fmt: skip
    said = datetime.fromisoformat(line["time"])
    assert said.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=1)


def test_a_line_of_text_ends_with_what_is_bound(lines):
    say(job_id="job_1", attempt=3)
    say()
    assert lines[0][0].endswith("WARNING tests.logs: m [job_id=job_1 attempt=3]")
    assert lines[1][0].endswith("WARNING tests.logs: m")


def test_what_is_bound_stays_in_its_task_or_thread_and_can_be_handed_on(lines):
    def bound():
        logs.bind(job_id="job_1")
        logs.bind(token=2)
        assert logs.bound() == {"job_id": "job_1", "token": 2}
        thread = Thread(target=copy_context().run, args=(logging.getLogger("tests.logs").info, "elsewhere"))
        thread.start()
        thread.join()

    copy_context().run(bound)
    assert logs.bound() == {}
    assert (lines[0][1]["message"], lines[0][1]["job_id"], lines[0][1]["token"]) == ("elsewhere", "job_1", 2)


def test_an_exception_is_text_below_and_one_field_of_json(lines):
    fail("broken\nin two")
    text, line = lines[0]
    assert text.splitlines()[-2:] == ["ValueError: broken", "in two"]
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("in two")


def test_a_value_that_a_user_sent_does_not_look_like_another_line(lines):
    say(path="/a\n2026 ERROR api: made up")
    text, line = lines[0]
    assert len(text.splitlines()) == 1
    assert line["path"] == "/a\n2026 ERROR api: made up"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (f"key {KEY} is", "key *** is"),
        (f"token={TOKEN}", "token=***"),
        ("signed by whsec_C2FVsBQ/hrscChlQIMV+b5sSYspob7o= and sent", "signed by *** and sent"),
        ("postgresql+psycopg://ann:s3cr3t@db:5432/x", "postgresql+psycopg://***@db:5432/x"),
        ("redis://:s3cr3t@cache/0", "redis://***@cache/0"),
        ("https://example.org/a and me@example.org", "https://example.org/a and me@example.org"),
        ("calls hf_hub_download", "calls hf_hub_download"),
    ],
)
def test_secrets_are_not_shown_wherever_they_stand(lines, said, seen):
    say("%s", said)
    say(note=said)
    fail(said)
    assert seen in lines[0][0]
    assert (lines[0][1]["message"], lines[1][1]["note"]) == (seen, seen)
    assert seen in lines[2][0]
    assert lines[2][1]["exception"].endswith(seen)


PROCESS = """
import logging, sys, warnings
from sentinel.utils import logs
library = logging.getLogger("library")
library.addHandler(logging.StreamHandler(sys.stdout))
library.propagate = False
logs.configure(logs.LogFormat(sys.argv[1]))
logs.adopt("library")
logs.bind(job_id="job_1")
library.warning("adopted")
logging.getLogger("httpx").info("GET https://cdn/x?Signature=s3cr3t")
warnings.warn("careful")
raise RuntimeError("last words")
"""


def test_a_process_logs_libraries_warnings_and_its_last_words_alike():
    done = subprocess.run([sys.executable, "-c", PROCESS, "json"], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("library", "warning"), ("py.warnings", "warning"), ("sentinel.utils.logs", "critical"),
    ]  # fmt: skip
    assert "careful" in lines[1]["message"]
    assert "RuntimeError: last words" in lines[2]["exception"]
    assert {line["job_id"] for line in lines} == {"job_1"}
    assert (done.returncode, done.stdout) == (1, "")
