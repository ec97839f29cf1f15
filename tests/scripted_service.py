"""A service that answers as a test says, badly on purpose; the well-behaved one is tried in the other rooms."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *args):
        pass


def refusal(status, code, detail, *, next_step="Wait.", headers=(), **more):
    """The service's own word for why not, as a problem document."""
    problem = {"status": status, "code": code, "detail": detail, "next_step": next_step, "request_id": "r", **more}
    return reply(problem, status=status, headers=headers, media_type="application/problem+json")


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


def announcing(files):
    """A job that has succeeded with these files as its checkpoint."""
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


def part(content, *, cut_after=None, tag=None):
    """The range of a file that is asked for, as the service and storages give it.

    Hangs up after so many bytes; a `tag` of its own holds no If-Range.
    """
    tag = tag or f'"{hashlib.sha256(content).hexdigest()}"'

    def answer(handler):
        range_ = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        honoured = range_ and handler.headers.get("If-Range", tag) == tag
        offset = int(range_[1]) if honoured else 0
        handler.send_response(206 if honoured else 200)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(content) - offset))
        if honoured:
            handler.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[offset:][:cut_after])
        handler.close_connection = True

    return answer
