"""Uploads to a service that breaks off, and what else may not simply be sent twice."""

import hashlib

import pytest

from sentinel.transport import OutcomeUnknown, ServiceRefused, ServiceUnreachable
from tests.scripted_service import hang_up, reply

TEXT = bytes(range(256)) * 9000  # more than one piece
PROBLEM = {"status": 404, "code": "gone", "detail": "It is not there.", "next_step": "None.", "request_id": "r"}
KEY = {
    "id": "1",
    "name": "robot",
    "scopes": ["read"],
    "quotas": {},
    "rate_limit": None,
    "created_at": "2030-01-01T00:00:00Z",
    "expires_at": None,
    "revoked_at": None,
    "key": "sntl_1_secret",
}


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "stories.txt"
    file.write_bytes(TEXT)
    return file


def upload(state):
    digest = hashlib.sha256(TEXT).hexdigest()
    file = {"number": 0, "path": "stories.txt", "bytes": len(TEXT), "sha256": digest, "stored": state == "ready"}
    summary = {"id": "upl_1", "kind": "text", "name": None, "state": state, "bytes": len(TEXT), "error": None}
    return reply({**summary, "created_at": "2030-01-01T00:00:00Z", "files": [file]})


def test_a_file_is_sent_whole_again_after_trouble(server, client, file):
    told = []
    busy = reply(PROBLEM, status=503, headers=[("Retry-After", "0")])
    server.script = [upload("open"), hang_up, busy, upload("ready")]
    made = client.upload_text(file, progress=lambda *bytes_: told.append(bytes_))
    assert (made.id, made.state) == ("upl_1", "ready")
    assert [body == TEXT for method, _, _, body in server.asked if method == "PUT"] == [True] * 3
    assert told[-1] == (len(TEXT), len(TEXT))
    assert max(told) == told[-1]
    server.script = [upload("ready")]
    assert client.upload_text(file).state == "ready"
    keys = {headers["Idempotency-Key"] for method, _, headers, _ in server.asked if method == "POST"}
    assert len(keys) == 1


def test_patience_ends_with_a_service_that_is_gone(server, client, file):
    server.script = [upload("open"), reply(PROBLEM, status=503, headers=[("Retry-After", "60")])]
    with pytest.raises(ServiceUnreachable):
        client.upload_text(file)


def test_what_makes_a_secret_is_never_done_twice(server, client):
    server.script = [hang_up]
    with pytest.raises(OutcomeUnknown, match="POST /v1/keys"):
        client.make_key("robot", ["read"])
    assert len(server.asked) == 1
    too_many = reply(PROBLEM | {"status": 429}, status=429, headers=[("Retry-After", "0")])
    server.script = [too_many, reply(KEY, status=201)]
    assert client.make_key("robot", ["read"]).key == KEY["key"]


def test_what_is_deleted_may_be_gone_when_the_answer_was_lost(server, client):
    server.script = [hang_up, reply(PROBLEM, status=404)]
    assert client.delete_upload("upl_1") is None
    server.script = [reply(PROBLEM, status=404)]
    with pytest.raises(ServiceRefused):
        client.delete_upload("upl_1")
