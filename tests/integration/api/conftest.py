"""A real server over a real database and a real storage; what a worker would do goes through the store."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api.connections import Connection
from api.main import create_app
from api.settings import Settings
from api.store import jobs, leases
from api.store.database import Database, upgrade
from api.store.files import NewArtifact
from api.store.keys import create_key
from api.store.models import ArtifactKind
from api.store.storage import Storage, attempt_prefix
from tests.commands import call

SPEC = {"name": "small", "model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}
CHECKPOINT = MappingProxyType({"checkpoint/config.json": b"{}\n", "checkpoint/model.safetensors": b"weights"})


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """SQLite alone, unless a test names its databases itself: most of the HTTP side does not differ."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "database_url" in metafunc.fixturenames and "database_url" not in named:
        metafunc.definition.add_marker(pytest.mark.parametrize("database_url", ["sqlite"], indirect=True))


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve in a thread on a free port; yields the base URL."""
    server = uvicorn.Server(uvicorn.Config(app, http=Connection, port=0, log_config=None, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Service:
    """A running API, and the worker's side of its store."""

    app: FastAPI
    base_url: str
    settings: Settings
    folder: Path

    @property
    def database(self) -> Database:
        return self.app.state.resources.database

    @cached_property
    def client(self) -> httpx.Client:
        return self.client_of("ann")

    def client_of(self, tenant: str, *scopes: str) -> httpx.Client:
        with self.database.transaction() as session:
            _, key = create_key(session, tenant, tenant, scopes or ("read", "submit"))
        return httpx.Client(base_url=self.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=20)

    def hub_variables(self, home: Path) -> dict[str, str]:
        """All that a client of the hub needs to know, and a cache of its own."""
        key = self.client.headers["Authorization"].removeprefix("Bearer ")
        return {"HF_ENDPOINT": f"{self.base_url}/hub", "HF_TOKEN": key, "HF_HOME": str(home)}

    def run_hub_client(self, home: Path, *command: str) -> str:
        """What a fresh process prints."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables = others | self.hub_variables(home)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=home.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, client: httpx.Client | None = None, **changes) -> dict:
        answer = (client or self.client).post("/v1/jobs", json=SPEC | changes)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def claim(self) -> leases.Claim:
        with self.database.transaction() as session:
            claim = leases.claim_next(session, worker="w", lease_s=60)
        assert claim is not None
        return claim

    def record(self, claim, *events):
        with self.database.transaction() as session:
            leases.record_events(session, claim, events)

    def finish(self, claim, files=CHECKPOINT):
        artifacts = [self.store(claim, path, content) for path, content in files.items()]
        with self.database.transaction() as session:
            leases.succeed(session, claim, {"dense": {"loss": 1.5}}, artifacts)

    def stop(self, claim, files=CHECKPOINT):
        """Cancel a running job of ann's that has kept a cycle, with these files as its checkpoint."""
        state = [self.store(claim, path, content) for path, content in files.items()]
        names = ("path", "sha256", "bytes", "storage_key")
        manifest = [{name: getattr(file, name) for name in names} for file in state]
        with self.database.transaction() as session:
            leases.record_checkpoint(session, claim, 1, manifest)
            jobs.request_cancel(session, "ann", claim.job_id, grace_s=0)
            leases.finish_cancel(session, claim)

    def store(self, claim, path, content):
        source = self.folder / "file"
        source.write_bytes(content)
        stored = Storage(self.settings.storage_uri).put_file(source, attempt_prefix(claim.job_id, claim.token))
        return NewArtifact(
            kind=ArtifactKind.CHECKPOINT if path.startswith("checkpoint/") else ArtifactKind.PLOT,
            path=path,
            sha256=stored.sha256,
            bytes=stored.bytes,
            media_type="application/octet-stream",
            storage_key=stored.key,
        )


@contextmanager
def running(home: Path, **more_settings: object) -> Iterator[Service]:
    """A service that tests share."""
    settings = Settings(home=home, redis_url=f"redis+socket://{home}/none.sock", **more_settings)
    upgrade(settings.database_url)
    app = create_app(settings)
    with serving(app) as base_url:
        service = Service(app, base_url, settings, home)
        yield service
        service.client.close()


@pytest.fixture
def spec() -> dict:
    """A document that is accepted."""
    return dict(SPEC)


@pytest.fixture
def serve() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """Serve an application of the test's own."""
    return serving


@pytest.fixture
def more_settings() -> dict[str, object]:
    """What a test sets beside the rest."""
    return {}


@pytest.fixture
def settings(tmp_path, database_url, more_settings) -> Settings:
    redis_url = f"redis+socket://{tmp_path}/none.sock"
    return Settings(home=tmp_path, database_url=database_url, redis_url=redis_url, max_body_bytes=4096, **more_settings)


@pytest.fixture
def service(settings, tmp_path) -> Iterator[Service]:
    app = create_app(settings)
    with serving(app) as base_url:
        running = Service(app, base_url, settings, tmp_path)
        yield running
        running.client.close()


@pytest.fixture
def environment(service, monkeypatch, tmp_path):
    """Address and key of the service, in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SENTINEL_URL", service.base_url)
    monkeypatch.setenv("SENTINEL_API_KEY", service.client.headers["Authorization"].removeprefix("Bearer "))
    monkeypatch.delenv("SENTINEL_HOME", raising=False)
    return monkeypatch


@pytest.fixture
def command(environment, capsys):
    """Run a command; its exit code and what it printed."""

    return partial(call, environment, capsys)


@pytest.fixture
def answer(command):
    """Run a command with --json; what its last line says."""

    def run(*arguments):
        return json.loads(command(*arguments, "--json").out.splitlines()[-1])

    return run
