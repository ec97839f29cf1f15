"""Two replicas behind the proxy, as docker-compose.yml configures it; only the addresses are the test's."""

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from api.main import create_app
from api.settings import Settings
from sentinel.client import SentinelClient
from sentinel.events import MessageLogged
from sentinel.replies import Problem
from tests.faults.cluster import free_port
from tests.integration.api.conftest import SPEC, Service
from worker.embedded import as_environment
from worker.processes import Process, end, start, wait_until
from worker.redis_server import private_redis

ROOT = Path(__file__).parents[3]
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
BIG = bytes(range(256)) * 16 * 1024  # 4 MiB
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")


@contextmanager
def replica(settings: Settings, port: int):
    """One process of the API; yields it."""
    log = settings.home / f"api-{port}.log"
    command = [sys.executable, "-m", *image_command(), "--port", str(port)]
    process = start(command, log=log, environment=os.environ | as_environment(settings))
    try:
        yield process
    finally:
        end(process)


def image_command() -> list[str]:
    """What the API's image runs. A later `--port` wins."""
    (line,) = (line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith('CMD ["uvicorn"'))
    return json.loads(line.removeprefix("CMD "))


def is_answered(url: str, status: int = 200) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == status
    except httpx.TransportError:
        return False


@contextmanager
def proxy(folder: Path, ports: list[int]):
    """nginx in front of replicas on these ports; yields its URL."""
    shutil.copy(ROOT / "deploy/nginx/nginx.conf", folder)
    servers = "".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=5s;" for port in ports)
    (folder / "upstream.conf").write_text(f"upstream api {{ least_conn; {servers} }}")
    address = f"127.0.0.1:{free_port()}"
    (folder / "listen.conf").write_text(f"listen {address};")
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]
    process = start(command, log=folder / "proxy.log")
    try:
        # Answered by the proxy itself.
        wait_until(lambda: is_answered(f"http://{address}/metrics", 404), process, log=folder / "proxy.log")
        yield f"http://{address}"
    finally:
        end(process)


@dataclass(frozen=True)
class Installation:
    """What runs; `service` speaks to the proxy, and does to the store what a worker would."""

    folder: Path
    service: Service
    replicas: list[Process]


@pytest.fixture(scope="module")
def installation(tmp_path_factory, migrated_sqlite):
    folder = tmp_path_factory.mktemp("installation").resolve()
    shutil.copy(migrated_sqlite, folder / "sentinel.db")
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis(folder / "redis.log"))
        # The proxy has another port than the replicas, and says to them which host it was asked for.
        settings = Settings(home=folder, redis_url=redis.url, allowed_hosts=["127.0.0.1"])
        replicas = [stack.enter_context(replica(settings, port)) for port in ports]
        for port, process in zip(ports, replicas, strict=True):
            ready = partial(is_answered, f"http://127.0.0.1:{port}/readyz")
            wait_until(ready, process, log=folder / f"api-{port}.log")
        service = Service(create_app(settings), stack.enter_context(proxy(folder, ports)), settings, folder)
        yield Installation(folder, service, replicas)
        service.client.close()


@pytest.fixture
def service(installation):
    return installation.service


def test_a_job_goes_in_under_one_request_id(installation, service):
    answer = service.client.post("/v1/jobs", json=SPEC, headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (201, "mine-1")
    made = service.client.get("/v1/jobs", headers={"X-Request-Id": 'not "sane"'}).headers["X-Request-Id"]
    assert len(made) == 32
    logs = [installation.folder / "proxy.log", *installation.folder.glob("api-*.log")]
    for request_id in ("mine-1", made):
        # A line is written once the answer is out, so we may be here first.
        wait_for(lambda wanted=request_id: sum(wanted in log.read_text() for log in logs) == 2)


def test_events_come_as_they_happen(service):
    service.submit()
    claim = service.claim()
    headers = {"Accept": "text/event-stream"}
    with service.client.stream("GET", f"/v1/jobs/{claim.job_id}/events", headers=headers) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        for number in range(3):
            # Said only now, and read before the next is said: nothing on the way may wait for more.
            service.record(claim, MessageLogged(text=f"number {number}"))
            assert any(f"number {number}" in line for line in lines)
        service.finish(claim, {})
        assert '"succeeded"' in list(lines)[-1]


def test_a_long_poll_waits_for_its_change(service):
    job = service.submit()
    url = f"/v1/jobs/{job['id']}"
    tag = service.client.get(url).headers["ETag"]
    cancel = threading.Timer(0.5, lambda: service.client.post(f"{url}/cancel"))
    cancel.start()
    started = time.monotonic()
    changed = service.client.get(url, params={"wait": 15}, headers={"If-None-Match": tag})
    cancel.join()
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")
    assert 0.4 < time.monotonic() - started < 14


def test_downloads_are_streamed_whole_and_in_ranges(installation, service):
    service.submit()
    claim = service.claim()
    service.finish(claim, {"checkpoint/model.safetensors": BIG})
    (artifact,) = service.client.get(f"/v1/jobs/{claim.job_id}/artifacts").json()["data"]
    url = artifact["links"]["content"]
    whole = service.client.get(url)
    assert hashlib.sha256(whole.content).hexdigest() == artifact["sha256"] == whole.headers["ETag"].strip('"')
    part = service.client.get(url, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.content) == (206, BIG[1000:])
    tar = service.client.get(f"/v1/jobs/{claim.job_id}/checkpoint")
    assert len(tar.content) == int(tar.headers["Content-Length"]) > len(BIG)
    assert not [path for path in (installation.folder / "proxy").rglob("*") if path.is_file()]


def test_a_body_that_the_api_would_refuse_is_refused(service):
    longest = Settings.model_fields["max_body_bytes"].default
    headers = {"Content-Type": "application/json", "X-Request-Id": "long"}
    for length, refused_with in ((longest, 422), (longest + 1, 413)):
        answer = service.client.post("/v1/jobs", content=b" " * length, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (refused_with, "application/problem+json")
        assert Problem.model_validate_json(answer.content).request_id == answer.headers["X-Request-Id"] == "long"
    assert answer.json()["code"] == "body_too_large"


def test_a_file_of_an_upload_may_be_longer_and_never_touches_the_proxy_s_disk(installation, service):
    content = BIG + b"\n"
    file = {"path": "text.txt", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    made = service.client.post("/v1/uploads", json={"kind": "text", "files": [file]}).json()
    sent = service.client.put(made["files"][0]["links"]["content"], content=content)
    assert (sent.status_code, sent.json()["state"]) == (200, "ready")
    again = service.client.put(f"{made['links']['self']}/elsewhere", content=content)
    assert (again.status_code, again.json()["code"]) == (413, "body_too_large")
    assert not [path for path in (installation.folder / "body").rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/v1/../metrics"])
def test_numbers_of_all_tenants_stay_inside(service, path):
    answer = httpx.get(f"{service.base_url}{path}")
    assert (answer.status_code, Problem.model_validate_json(answer.content).code) == (404, "not_found")


def test_a_replica_is_killed_and_its_users_notice_nothing(installation, service):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")
    stop, submitted = threading.Event(), []

    def use() -> None:
        with SentinelClient(service.base_url, key) as client:
            while not stop.is_set():
                submitted.append(client.submit(SPEC | {"name": "while-killed"}).id)
                assert client.get(submitted[-1]).name == "while-killed"

    user = threading.Thread(target=use)
    user.start()
    wait_for(lambda: len(submitted) > 5)
    installation.replicas[0].kill()
    before = len(submitted)
    wait_for(lambda: len(submitted) > before + 20)
    stop.set()
    user.join()
    stored = service.client.get("/v1/jobs", params={"name": "while-killed", "limit": 200}).json()["data"]
    assert sorted(job["id"] for job in stored) == sorted(submitted)


def test_without_any_replica_the_proxy_says_so(tmp_path):
    with proxy(tmp_path, [free_port(), free_port()]) as url:
        answer = httpx.get(f"{url}/v1/jobs")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert Problem.model_validate_json(answer.content).code == "unready"


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
