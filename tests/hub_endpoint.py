"""The read side of the hub protocol over a real socket: serves folders, under a path prefix.

`owner/name` under `root` is a model; `datasets/owner/name` is a dataset. All have the same
commits, and at each the same files.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# The imports of a client take seconds, once, and a fifth less while no garbage is looked for; what it computes for one
# question, no later one knows.
CLIENT = """
import gc, json, os, sys
gc.disable()
exec(sys.argv[1])
gc.freeze()
gc.enable()
for line in sys.stdin:
    if os.fork() == 0:
        print(json.dumps(answer(*json.loads(line))), flush=True)
        os._exit(0)
    if os.wait()[1] != 0:
        sys.exit("The answer failed.")
"""


@dataclass
class Hub:
    """What it serves, and what it was asked for."""

    root: Path
    port: int = 0
    requests: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=lambda: [COMMIT])  # `main` is the last one

    def commit(self, revision: str) -> str | None:
        """The commit that a revision names."""
        if revision == "main":
            return self.commits[-1]
        return revision if revision in self.commits else None

    def start(self) -> None:
        """Serve, on the same port every time."""
        self._server = _Server(self)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not there, for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def client(self, code: str, *, home: Path, **environment: str) -> Iterator[Callable[..., object]]:
        """A process that keeps what it downloads in `home`: call it with what its function `answer` shall be told.

        huggingface_hub reads its settings when it is imported, so each needs a process of its own. Every call is
        answered by a fork of it.
        """
        variables = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{self.port}/hub", "HF_HOME": str(home)}
        variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        command = [sys.executable, "-c", CLIENT, code]
        with subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:

            def ask(*arguments: object) -> object:
                print(json.dumps(arguments), file=process.stdin, flush=True)
                return json.loads(process.stdout.readline() or "null")

            yield ask
            process.stdin.close()
            assert process.wait() == 0


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    root.mkdir()
    hub = Hub(root)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", hub.port), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    """The protocol as huggingface_hub and datasets speak it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/hub/")
        self.server.hub.requests.append(self.path)
        if path.startswith("api/"):
            self._api(path.removeprefix("api/").removeprefix("models/").split("/"))
        else:
            name, _, rest = path.partition("/resolve/")
            self._file(name, *rest.split("/", 1))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Which of these paths are files."""
        self.server.hub.requests.append(self.path)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
        folder = self.server.hub.root / self.path.removeprefix("/hub/api/").partition("/paths-info/")[0]
        self._send(200, json.dumps([entry for entry in _tree(folder) if entry["path"] in asked]).encode())

    def log_message(self, *arguments: object) -> None:
        """Keep the test output quiet."""

    def _api(self, parts: list[str]) -> None:
        depth = 3 if parts[0] == "datasets" else 2
        folder = self.server.hub.root.joinpath(*parts[:depth])
        what, revision, *_ = [*parts[depth:], "", "main"] if len(parts) == depth else parts[depth:]
        if "broken" in parts[depth - 1]:
            self._send(500, b"{}")
        elif not folder.is_dir() or (commit := self.server.hub.commit(revision)) is None:
            kind = "RevisionNotFound" if folder.is_dir() else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": kind})
        else:
            self._send(200, json.dumps(_tree(folder) if what == "tree" else _info(folder, commit)).encode())

    def _file(self, name: str, revision: str, path: str) -> None:
        file, commit = self.server.hub.root / name / path, self.server.hub.commit(revision)
        if commit is None or not file.is_file():
            kind = "EntryNotFound" if file.parent.is_dir() else "RepoNotFound"
            self._send(404, b"", {"X-Error-Code": kind, "X-Repo-Commit": commit or ""})
            return
        content, headers = file.read_bytes(), {"ETag": f'"{_sha(file)}"', "X-Repo-Commit": commit}
        if (asked := self.headers.get("Range")) is None:
            self._send(200, content, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1 if last else None]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self._send(206, part, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": file.stat().st_size, "oid": _sha(file)}
        for name, file in _files(folder).items()
    ]


def _info(folder: Path, commit: str) -> dict[str, object]:
    fields = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
    name = f"{folder.parent.name}/{folder.name}"
    return {"id": name, "sha": commit, "siblings": [{"rfilename": n} for n in _files(folder)], **fields}


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
