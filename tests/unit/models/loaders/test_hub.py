"""Loading from the hub protocol, over a real socket: a small endpoint serves folders under a path prefix."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# A fresh process, because huggingface_hub reads its settings when it is imported.
LOAD = """
import json, sys
from sentinel.errors import SentinelError
from sentinel.models.loaders.load import load_model
from sentinel.spec import HubModel

outcomes = {}
for name, revision in json.loads(sys.argv[1]):
    try:
        model, _, family = load_model(HubModel(id=name, revision=revision), device="cpu", dtype="float32")
        outcomes[f"{name}@{revision}"] = family.counts(model, "attention")
    except SentinelError as error:
        outcomes[f"{name}@{revision}"] = error.code
print(json.dumps(outcomes))
"""


@dataclass
class Hub:
    root: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def load(self, *models: tuple[str, str], home: Path, **environment: str) -> dict[str, object]:
        variables = {**os.environ, "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        variables |= {"HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        command = [sys.executable, "-c", LOAD, json.dumps(models)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


class Handler(BaseHTTPRequestHandler):
    """The read side of the protocol, as huggingface_hub asks for it."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.hub.requests.append(self.path)
        parts = self.path.split("?")[0].removeprefix("/hub/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api(parts[2:])
        else:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Keep the test output quiet."""

    def _api(self, parts: list[str]) -> None:
        folder = self.server.hub.root / "/".join(parts[:2])
        revision = parts[3] if len(parts) > 3 else "main"
        if "broken" in parts[1]:
            self._send(500, b"{}")
        elif not folder.is_dir() or revision not in ("main", COMMIT):
            kind = "RevisionNotFound" if folder.is_dir() else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": kind})
        else:
            self._send(200, json.dumps(_listing(folder, tree="tree" in parts)).encode())

    def _file(self, name: str, revision: str, path: str) -> None:
        file = self.server.hub.root / name / path
        if revision != COMMIT or not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        self._send(200, file.read_bytes(), {"ETag": f'"{_sha(file)}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


def _listing(folder: Path, *, tree: bool) -> object:
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    if tree:
        return [{"type": "file", "path": n, "size": f.stat().st_size, "oid": _sha(f)} for n, f in files.items()]
    fields = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
    name = f"{folder.parent.name}/{folder.name}"
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files], **fields}


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(root=tmp_path / "hub")
    hub.root.mkdir()
    server = Server(hub)
    hub.url = f"http://127.0.0.1:{server.server_port}/hub"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_models_come_from_the_hub_at_a_pinned_commit(hub, saved_models, tmp_path):
    good = shutil.copytree(saved_models / "llama", hub.root / "someone" / "good")
    (good / "onnx").mkdir()
    for name in ("pytorch_model.bin", "modeling_evil.py", "consolidated.safetensors", "onnx/model.safetensors"):
        (good / name).write_bytes(b"never wanted")
    pickled = shutil.copytree(saved_models / "llama", hub.root / "someone" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    coded = shutil.copytree(saved_models / "llama", hub.root / "someone" / "coded")
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Evil"}}))

    names = ("good", "pickled", "coded", "missing", "broken")
    wanted = [(f"someone/{name}", "main") for name in names] + [("someone/good", "no-such-branch")]
    assert hub.load(*wanted, home=tmp_path / "home") == {
        "someone/good@main": [4, 4, 4],
        "someone/pickled@main": "model_unsafe",
        "someone/coded@main": "model_unsafe",
        "someone/missing@main": "model_not_found",
        "someone/broken@main": "hub_unreachable",
        "someone/good@no-such-branch": "model_not_found",
    }
    fetched = [path for path in hub.requests if "/resolve/" in path]
    assert any("model.safetensors" in path for path in fetched)
    assert all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert not [path for path in fetched if "pickled" in path or path.endswith((".bin", ".py"))]
    assert not [path for path in fetched if "onnx" in path or "consolidated" in path]


def test_without_an_endpoint_only_what_was_downloaded_is_there(hub, saved_models, tmp_path):
    for name in ("seen", "unseen"):
        shutil.copytree(saved_models / "gpt2", hub.root / "someone" / name)
    seen, unseen = ("someone/seen", "main"), ("someone/unseen", "main")
    hub.load(seen, home=tmp_path)
    hub.requests.clear()
    offline = hub.load(seen, unseen, home=tmp_path, HF_HUB_OFFLINE="1")
    assert offline == {"someone/seen@main": [4, 4, 4], "someone/unseen@main": "hub_unreachable"}
    assert hub.requests == []
    hub.url = "http://127.0.0.1:9/hub"
    assert hub.load(seen, home=tmp_path) == {"someone/seen@main": "hub_unreachable"}
