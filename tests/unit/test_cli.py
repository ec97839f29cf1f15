"""The command itself, in this process and without a service: how it ends when something is wrong."""

import errno
import io
import json
import sys
from functools import partial

import pytest

from tests.commands import call
from tests.scripted_service import JOB, announcing, refusal, reply

SERVED_NOWHERE = ("--url", "http://127.0.0.1:1", "--api-key", "sntl_key")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call `sentinel` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("SENTINEL_URL", "SENTINEL_API_KEY", "SENTINEL_HOME"):
        monkeypatch.delenv(name, raising=False)

    return partial(call, monkeypatch, capsys)


@pytest.fixture
def error(command):
    """Call `sentinel … --json`, which must fail as the last line says."""

    def fail(*arguments):
        failed = command(*arguments, "--json")
        return failed.code, json.loads(failed.out.splitlines()[-1])["error"]

    return fail


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (("list", "--url", "foo", "--api-key", "sntl_key"), 2, "address_invalid"),
        (("list", "--url", "http://127.0.0.1:1", "--api-key", "ü"), 4, "key_invalid"),
        (("get", "../keys", *SERVED_NOWHERE), 2, "id_invalid"),
        (("get", "job_1\n", *SERVED_NOWHERE), 2, "id_invalid"),
        (("usage", "--from", "0001-01-01", *SERVED_NOWHERE), 2, "time_invalid"),
    ],
)
def test_what_can_reach_no_service_is_told_at_once(error, arguments, code, name):
    ended, told = error(*arguments)
    assert (ended, told["code"]) == (code, name)


def test_a_key_from_a_secret_that_ends_a_line_is_taken(command, server, monkeypatch):
    monkeypatch.setenv("SENTINEL_API_KEY", "sntl_secret\n")
    server.script = [reply(JOB)]
    done = command("get", "job_1", "--url", f"http://127.0.0.1:{server.server_port}", "--json")
    assert done.code == 0, done.err
    assert server.asked[0][2]["Authorization"] == "Bearer sntl_secret"


def test_a_quota_that_is_used_up_is_told_as_the_service_says_it(error, server):
    server.script = [refusal(429, "rate_exceeded", "600 in a minute are enough.", headers=[("Retry-After", "3600")])]
    url = f"http://127.0.0.1:{server.server_port}"
    code, told = error("get", "job_1", "--url", url, "--api-key", "sntl_key")
    assert code == 4
    assert (told["code"], told["message"]) == ("rate_exceeded", "600 in a minute are enough.")


def test_a_file_that_is_in_the_way_is_told(error, server, tmp_path):
    (tmp_path / "file").write_text("mine")
    quick = ("--model", "builtin/llama", "--prune.target.sparsity", "0.3")
    url = f"http://127.0.0.1:{server.server_port}"
    server.script = [announcing({"config.json": b"{}"})]
    for arguments in (
        ("run", *quick, "--output", "file"),
        ("init", "missing/spec.yaml", "--yes"),
        ("download", "job_1", "file/folder", "--url", url, "--api-key", "sntl_key"),
    ):
        code, told = error(*arguments)
        assert (code, told["code"]) == (2, "file_unusable"), arguments
        assert "file" in told["message"] or "missing" in told["message"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_host_that_is_in_trouble_is_told(error, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sentinel.spec_draft.Draft.text", full)
    code, told = error("init", "--yes")
    assert (code, told["code"], told["message"]) == (1, "host_trouble", "No space left on device.")


def test_a_key_ends_within_a_hundred_years(error):
    code, told = error("keys", "make", "ci", "--scope", "read", "--days", "3000000", *SERVED_NOWHERE)
    assert (code, told["code"]) == (2, "wrong_call")
    assert "36500" in told["message"]


def test_nobody_to_ask_is_told_from_ctrl_c(error, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, told = error("init")
    assert (code, told["code"]) == (2, "nobody_answers")
    assert "--yes" in told["next_step"]
    assert not list(tmp_path.iterdir())


def test_a_run_that_a_launcher_started_several_times_is_refused(error, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, told = error("run", "--model", "builtin/gpt2")
    assert (code, told["code"], list(tmp_path.iterdir())) == (2, "wrong_call", [])
    assert "sentinel run" in told["next_step"]
