"""What tests of the whole service share: a tiny job, storages, and which processes belong to an installation."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trustme

from api.settings import Settings
from sentinel.client import SentinelClient
from worker.embedded import EmbeddedService

if TYPE_CHECKING:  # importing the S3 server takes a second, which most tests need not spend
    from tests.object_store import Backing, Bucket, ObjectStore

# For models this small a second thread costs more than it does; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in a shell's background, this process ignores Ctrl-C, and so would every process that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_token_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own as it is, and tests apart from what earlier ones left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTINEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_to_trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves this host, and to read everybody's certificates takes a client longer than its requests."""
    certificates = tmp_path_factory.mktemp("certificates") / "one.pem"
    trustme.CA().cert_pem.write_to_path(certificates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificates))
        yield


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that serves the installation in `home`, or works in a folder of it."""
    return [process for process in psutil.process_iter() if _belongs(process, home)]


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("SENTINEL_HOME") == str(home) or process.cwd().startswith(str(home))
    except psutil.Error:
        return False


@pytest.fixture(name="processes_of", scope="session")
def processes_of_fixture() -> Callable[[Path], list[psutil.Process]]:
    """`processes_of` for tests."""
    return processes_of


@pytest.fixture
def wait_until_gone() -> Callable[..., list[psutil.Process]]:
    """Wait for processes to end; returns those that did not."""

    def wait(processes: list[psutil.Process], timeout_s: float = 15) -> list[psutil.Process]:
        return psutil.wait_procs(processes, timeout=timeout_s)[1]

    return wait


# What takes no time, where a test is not about pruning.
QUICK_PRUNE = {"strategy": "magnitude", "allocation": "uniform", "compensation": "least_squares", "search": None}


@pytest.fixture(scope="session")
def tiny_spec() -> Callable[..., dict[str, Any]]:
    """A job of a few seconds on the built-in model; arguments replace what it says under `prune` and `heal`."""

    def spec(*, cycles: int = 1, steps: int = 3, **sections: Any) -> dict[str, Any]:
        return {
            "model": "builtin/llama",
            "data": {"source": "builtin", "sequence_length": 64},
            "prune": {"target": {"sparsity": 0.25}, "cycles": cycles, "calibration_sequences": 4, **QUICK_PRUNE},
            "heal": {"steps": steps, "batch_tokens": 128},
            "evaluate": {"tokens": 1024, "prompts": ["Once upon a time"]},
            **sections,
        }

    return spec


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedService]:
    """The whole service, with leases short enough to see one run out; its log lines are JSON."""
    home = tmp_path_factory.mktemp("service").resolve()
    times = {"lease_s": 6, "heartbeat_s": 1, "reconcile_s": 0.5}
    settings = Settings(home=home, port=0, **times, model_roots=[home / "models"], log_format="json")
    with EmbeddedService(settings) as service:
        yield service
    assert not processes_of(home)


@pytest.fixture
def client(service: EmbeddedService) -> Iterator[SentinelClient]:
    """A client of the service."""
    with SentinelClient(service.base_url, service.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server that lives as long as the tests."""
    from tests.object_store import ObjectStore

    store = ObjectStore()
    with store.serving():
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket on a store that does as it is asked; this process and its children get the variables for it."""
    from tests.object_store import Bucket

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    object_store.refuse = lambda _: None
    bucket = Bucket(object_store)
    object_store.requests.clear()
    return bucket


@pytest.fixture(params=["file", "s3"])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Backing:
    """What is behind a storage, of each kind."""
    from tests.object_store import Folder

    return Folder(tmp_path / "a folder" / "storage") if request.param == "file" else request.getfixturevalue("bucket")
