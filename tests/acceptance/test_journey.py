"""The way of a new user, from a first spec to a model that is pruned again: by command alone, and in Python alone.

The worker of this service reads the hub that the service itself is.
"""

import json
import math
import subprocess
import sys

import pytest
import yaml
from safetensors import safe_open

from api.settings import Settings
from api.store.database import create_database, upgrade
from api.store.keys import create_key
from sentinel import cli
from sentinel.client import SentinelClient
from tests.acceptance.test_service import RELOAD
from tests.conftest import QUICK_PRUNE
from worker.embedded import TENANT, EmbeddedService

QUICK = {
    **{f"prune.{name}": value for name, value in QUICK_PRUNE.items()},
    "prune.calibration_sequences": 4,
    "data.sequence_length": 64,
    "evaluate.tokens": 1024,
}
GRID = {"prune.target.sparsity": [0.25, 0.5]}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service, and this process's environment as its worker and a user of its hub need it."""
    settings = Settings(home=tmp_path_factory.mktemp("journey").resolve(), port=0)
    embedded = EmbeddedService(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"{embedded.base_url}/hub")
        patch.setenv("HF_TOKEN", key_that_reads(settings.database_url))
        patch.setenv("HF_HOME", str(settings.home / "hub"))
        with embedded:
            yield embedded


def key_that_reads(database_url):
    upgrade(database_url)
    database = create_database(database_url)
    with database.transaction() as session:
        _, key = create_key(session, TENANT, "worker", ["read"])
    database.close()
    return key


def load(name, folder):
    """How many parameters a fresh process finds that knows transformers alone."""
    command = [sys.executable, "-P", "-c", RELOAD, str(name)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parameters, tokens = map(int, done.stdout.split())
    assert tokens > 5
    return parameters


@pytest.fixture
def command(service, monkeypatch, tmp_path, capsys):
    """Run a command that succeeds, in this process; the last line that it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTINEL_HOME", str(service.key_file.parent))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sentinel", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert not ended.value.code, printed.out + printed.err
        return printed.out.splitlines()[-1]

    return run


def test_by_command_alone(command, tmp_path):
    quick = [word for name, value in QUICK.items() for word in (f"--{name}", json.dumps(value))]
    command("init", "--model", "builtin/llama", "--target", "25%", "--no-heal", "--yes")
    command("validate", "spec.yaml", *quick)
    job_id = command("submit", "spec.yaml", *quick)
    assert command("watch", job_id) == f"{job_id} succeeded"

    spec = yaml.safe_load((tmp_path / "spec.yaml").read_text())
    spec["prune"].pop("target")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"spec": spec, "grid": quickly(GRID)}))
    command("sweep", "validate", "sweep.yaml")
    sweep_id = command("sweep", "submit", "sweep.yaml")
    command("sweep", "watch", sweep_id)
    large, small = json.loads(command("sweep", "table", sweep_id, "--json"))["data"]
    assert small["result"]["parameters"] < large["result"]["parameters"]
    most = str(small["result"]["parameters"])
    best = json.loads(command("sweep", "best", sweep_id, "--max-parameters", most, "--json"))
    assert best == small

    chosen = best["jobs"][0]["id"]
    assert command("download", chosen, "pruned") == "pruned"
    with safe_open(tmp_path / "pruned" / "model.safetensors", "pt") as tensors:
        sizes = [math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118
    assert sum(sizes) == best["result"]["parameters"]

    hub = ("--model.source", "hub", "--model.id", f"jobs/{chosen}")
    again = json.loads(command("submit", "spec.yaml", *quick, *hub, "--watch", "--json"))["result"]
    assert again["dense"]["parameters"] == best["result"]["parameters"] > again["pruned"]["parameters"]


def quickly(grid):
    """The grid, and what makes its jobs quick as fields of one value."""
    return {**grid, **{name: [value] for name, value in QUICK.items()}}


def test_in_python_alone(service, tiny_spec, tmp_path):
    with SentinelClient(service.base_url, service.api_key) as client:
        spec = tiny_spec(heal=None)
        assert client.validate(spec).valid
        job = client.submit(spec)
        phases = [event.data["phase"] for event in client.watch(job.id) if event.type == "phase"]
        assert (phases[-1], client.get(job.id).state) == ("publishing", "succeeded")

        sweep = client.wait_for_sweep(client.submit_sweep({"spec": spec, "grid": GRID}).id)
        assert (sweep.counts["succeeded"], sweep.points) == (2, 2)
        large, small = client.sweep_table(sweep.id)
        assert client.sweep_best(sweep.id, max_parameters=small.result.parameters) == small
        assert client.sweep_best(sweep.id, minimise="loss") in (large, small)

        chosen = small.jobs[0].id
        folder = client.download_checkpoint(chosen, tmp_path / "pruned")
        assert (folder / "model.safetensors").is_file()
        assert load(f"jobs/{chosen}", tmp_path) == small.result.parameters

        sources = [{"source": "hub", "id": f"jobs/{chosen}"}, {"source": "job", "id": chosen}]
        again = [client.wait(client.submit(tiny_spec(model=source, heal=None)).id) for source in sources]
        assert [job.error for job in again] == [None] * len(sources)
        assert {job.result.dense.parameters for job in again} == {small.result.parameters}
        (after,) = {job.result.pruned.parameters for job in again}
        assert after < small.result.parameters
