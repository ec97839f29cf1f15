"""The client against a server that behaves badly on purpose; the well-behaved one is in tests/acceptance."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sentinel.client import FolderNotEmpty, NoCheckpoint, SentinelClient
from sentinel.downloading import DownloadDamaged
from sentinel.replies import Job
from sentinel.transport import ServiceRefused, ServiceUnreachable

JOB = {
    "id": "job_1",
    "name": None,
    "state": "succeeded",
    "phase": None,
    "cycle": None,
    "progress": 1.0,
    "attempt": 1,
    "max_attempts": 3,
    "error": None,
    "checkpoint_uri": "/v1/jobs/job_1/checkpoint",
    "created_at": "2030-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "spec": {},
    "result": None,
    "artifacts": [],
    "a_key_of_a_newer_service": 1,
}


class Scripted(ThreadingHTTPServer):
    """Answers requests with functions of the handler, in their order; keeps what was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = []
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.script.pop(0)(self)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *args):
        pass


def reply(document, *, status=200, headers=(), media_type="application/json"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def answer(handler):
        handler.send_response(status)
        for name, value in [("Content-Type", media_type), ("Content-Length", str(len(body))), *headers]:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang_up(handler):
    handler.close_connection = True


def stream(text):
    """Part of an event stream; the connection ends after it."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answer


def event(seq):
    data = {"seq": seq, "type": "message", "data": {}, "token": 1, "created_at": "2030-01-01T00:00:00Z"}
    return f": ping\r\n\r\nid: {seq}\r\nevent: message\r\ndata: {json.dumps(data)}\r\n\r\n"


@pytest.fixture
def server():
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    with SentinelClient(f"http://127.0.0.1:{server.server_port}", "sntl_key", patience_s=2) as client:
        yield client


def test_a_dropped_connection_and_a_busy_service_are_tried_again_with_one_idempotency_key(server, client):
    busy = reply({}, status=503, headers=[("Retry-After", "0")])
    server.script = [hang_up, busy, reply(JOB, status=201)]
    assert client.submit({"prune": {}}).id == "job_1"
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in server.asked}) == 1
    assert all(headers["Authorization"] == "Bearer sntl_key" for _, _, headers, _ in server.asked)
    assert [json.loads(body) for *_, body in server.asked] == [{"prune": {}}] * 3


def test_patience_ends_before_a_pause_that_the_service_asks_for(server, client):
    server.script = [reply({}, status=503, headers=[("Retry-After", "60")])]
    with pytest.raises(ServiceUnreachable):
        client.get("job_1")
    assert len(server.asked) == 1


def test_a_refusal_carries_the_problem_and_every_mistake(server, client):
    mistake = {"pointer": "/prune", "code": "missing", "message": "Field required"}
    problem = {
        "status": 422,
        "code": "spec_invalid",
        "detail": "The spec has 1 mistake(s).",
        "next_step": "Correct it.",
        "request_id": "r",
        "errors": [mistake],
    }
    server.script = [reply(problem, status=422, media_type="application/problem+json")]
    with pytest.raises(ServiceRefused, match="/prune: Field required") as refused:
        client.submit({})
    assert refused.value.problem.code == "spec_invalid"
    assert refused.value.instance_next_step == "Correct it."


def test_something_that_is_no_sentinel_service_is_named_as_such(server, client):
    server.script = [reply(b"<html>not found</html>", status=404, media_type="text/html")]
    with pytest.raises(ServiceRefused, match="without a problem document"):
        client.get("job_1")


def test_a_broken_event_stream_goes_on_after_the_last_event(server, client):
    end = 'event: end\r\ndata: {"state": "succeeded"}\r\n\r\n'
    half = event(3)[:40]
    server.script = [stream(event(1) + event(2) + half), hang_up, stream(event(3) + end)]
    assert [seen.seq for seen in client.watch("job_1")] == [1, 2, 3]
    assert [headers["Last-Event-ID"] for _, _, headers, _ in server.asked] == ["0", "2", "2"]


def test_lists_are_fetched_page_by_page(server, client):
    pages = [{"data": [JOB], "has_more": True, "next_cursor": "c"}, {"data": [JOB], "has_more": False}]
    server.script = [reply(page) for page in pages]
    assert [job.id for job in client.list(state="succeeded")] == ["job_1", "job_1"]
    assert [path for _, path, *_ in server.asked] == [
        "/v1/jobs?state=succeeded",
        "/v1/jobs?state=succeeded&cursor=c",
    ]


def test_waiting_polls_until_the_job_has_ended(server, client):
    running = JOB | {"state": "running"}
    not_modified = reply(b"", status=304, headers=[("ETag", '"2"')])
    tagged = [reply(running, headers=[("ETag", '"2"')]), not_modified, reply(JOB, headers=[("ETag", '"3"')])]
    server.script = [reply(running), *tagged]
    assert client.wait("job_1").ended
    assert [headers.get("If-None-Match") for _, _, headers, _ in server.asked] == [None, "", '"2"', '"2"']


def announcing(files):
    artifacts = [
        {
            "id": f"art_{name}",
            "kind": "checkpoint",
            "path": f"checkpoint/{name}",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "media_type": "application/octet-stream",
        }
        for name, content in files.items()
    ]
    return reply(JOB | {"artifacts": artifacts})


FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000}


def test_a_checkpoint_arrives_whole_even_when_a_connection_breaks(server, client, tmp_path):
    def broken(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(FILES["model.safetensors"])))
        handler.end_headers()
        handler.wfile.write(FILES["model.safetensors"][:1_000_000])

    server.script = [announcing(FILES), reply(FILES["config.json"]), broken, reply(FILES["model.safetensors"])]
    folder = client.download_checkpoint("job_1", tmp_path / "pruned")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == [folder]
    assert [path for _, path, *_ in server.asked[2:]] == ["/v1/artifacts/art_model.safetensors/content"] * 2


def test_a_changed_file_leaves_nothing_behind(server, client, tmp_path):
    server.script = [announcing(FILES), reply(FILES["config.json"]), reply(b"other")]
    with pytest.raises(DownloadDamaged, match=r"model\.safetensors"):
        client.download_checkpoint("job_1", tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_an_announced_path_cannot_leave_the_folder(server, client, tmp_path):
    server.script = [announcing({"../escaped": b"x"})]
    with pytest.raises(DownloadDamaged):
        client.download_checkpoint("job_1", tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_gets_no_key_and_its_refusal_tells_no_signed_url(server, client, tmp_path):
    location = f"http://localhost:{server.server_port}/bucket/key?X-Amz-Signature=secret"
    redirect = reply(b"", status=307, headers=[("Location", location)])
    server.script = [announcing(FILES), redirect, reply(b"<Error/>", status=403, media_type="application/xml")]
    with pytest.raises(ServiceRefused, match="/bucket/key answered HTTP 403") as refused:
        client.download_checkpoint("job_1", tmp_path / "pruned")
    assert "secret" not in refused.value.message
    assert ["Authorization" in headers for _, _, headers, _ in server.asked] == [True, True, False]


def test_files_are_never_overwritten(client, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FolderNotEmpty):
        client.download_checkpoint("job_1", tmp_path)


def test_a_job_without_a_checkpoint_is_refused(server, client, tmp_path):
    server.script = [reply(JOB | {"state": "failed", "checkpoint_uri": None})]
    with pytest.raises(NoCheckpoint):
        client.download_checkpoint("job_1", tmp_path / "pruned")


def test_replies_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Job.model_validate(JOB).state = "queued"
