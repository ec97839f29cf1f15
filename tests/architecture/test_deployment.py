"""What deploys and describes the service names only what there is: settings, modules, files, metrics, codes."""

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

import sentinel.errors
import worker.failures
from api.main import create_app
from api.settings import Settings
from api.store import errors as store
from sentinel.errors import SentinelError
from worker.embedded import API_OPTIONS
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
PROXY = (ROOT / "deploy/nginx/nginx.conf").read_text()
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_FILES = [ROOT / "docker-compose.yml", *sorted((ROOT / "deploy").glob("docker-compose*.yml"))]
NAMING_FILES = [*COMPOSE_FILES, ROOT / "docs/runbook.md", ROOT / "Dockerfile", ROOT / "deploy/nginx/nginx.conf"]


class Loader(yaml.SafeLoader):
    """Reads Compose's own tags as what they tag."""


Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def services() -> dict[str, dict]:
    return yaml.load((ROOT / "docker-compose.yml").read_text(), Loader)["services"]


def exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("path", NAMING_FILES, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path):
    named = set(re.findall(r"\bSENTINEL_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= {f"SENTINEL_{name.upper()}" for name in Settings.model_fields}


def test_every_secret_of_ours_is_a_setting_and_is_made():
    made = (ROOT / "deploy/make_secrets.sh").read_text()
    for name, secret in yaml.load((ROOT / "docker-compose.yml").read_text(), Loader)["secrets"].items():
        assert name == "postgres_password" or name.removeprefix("sentinel_") in Settings.model_fields
        assert secret["file"].removeprefix("deploy/") in made


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_overrides_change_services_that_there_are(path):
    assert yaml.load(path.read_text(), Loader)["services"].keys() <= services().keys()


def test_targets_and_mounted_files_exist():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    builds = [service["build"] for service in services().values() if "build" in service]
    assert {build["target"] for build in builds} == targets - {"base"}
    mounts = [volume for service in services().values() for volume in service.get("volumes", [])]
    folders = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_commands_run_modules_that_there_are():
    commands = [json.loads(line) for line in re.findall(r"CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]
    commands += [service["command"] for service in services().values() if "build" in service and "command" in service]
    modules = {command[command.index("-m") + 1] for command in commands if "-m" in command}
    modules |= set(re.findall(r"python -m ([\w.]+)", RUNBOOK))
    factories = {command[2].partition(":")[0] for command in commands if command[:2] == ["uvicorn", "--factory"]}
    assert modules >= {"worker", "worker.health", "alembic", "api.keys"}
    assert factories == {"api.main"}
    assert all(exists(module) for module in modules | factories)


def test_the_image_serves_as_the_embedded_service_does():
    (image,) = (json.loads(line) for line in re.findall(r'CMD (\["uvicorn".*\])$', DOCKERFILE, re.MULTILINE))
    for option, value in API_OPTIONS.items():
        assert image[image.index(option) + 1] == value
    for option in ("--http", "--loop"):
        module, _, name = API_OPTIONS[option].partition(":")
        assert hasattr(importlib.import_module(module), name)


def test_the_runbook_names_services_that_there_are():
    found = set(re.findall(r"docker compose (?:exec|restart|logs|ps|run)(?: -T| --[a-z-]+)* ([a-z0-9-]+)", RUNBOOK))
    assert found <= services().keys()
    assert found >= {"postgres", "api-1", "worker", "migrate"}


def test_the_proxy_reads_as_much_as_the_api():
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", PROXY)
    assert int(megabytes) * 1024 * 1024 == Settings.model_fields["max_body_bytes"].default


def test_the_proxy_waits_longer_than_the_longest_poll(tmp_path):
    document = create_app(Settings(home=tmp_path)).openapi()
    parameters = document["paths"]["/v1/jobs/{job_id}"]["get"]["parameters"]
    longest = next(each["schema"]["maximum"] for each in parameters if each["name"] == "wait")
    (patience,) = re.findall(r"proxy_read_timeout (\d+)s;", PROXY)
    assert int(patience) >= longest + 15


def test_watched_metrics_exist(tmp_path):
    app = create_app(Settings(home=tmp_path))
    exported = {
        metric.name
        for metric in (*app.state.resources.metrics._registry.collect(), *WorkerMetrics().registry.collect())
    }
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    named = {name.removesuffix("_total") for name in re.findall(r"\bsentinel_[a-z_]+", alerts)}
    assert named
    assert named <= exported
    rows = {name.removesuffix("_total") for name in re.findall(r"^\| `(sentinel_[a-z_]+)", RUNBOOK, re.MULTILINE)}
    assert rows == exported


def test_alerts_lead_to_parts_of_the_runbook():
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    parts = re.findall(r"^### (.*)$", RUNBOOK, re.MULTILINE)
    assert {rule["annotations"]["runbook"] for group in groups for rule in group["rules"]} <= set(parts)


def test_the_runbook_knows_every_way_to_fail():
    errors = [each for module in (sentinel.errors, worker.failures) for each in vars(module).values()]
    codes = {each.code for each in errors if isinstance(each, type) and issubclass(each, SentinelError)}
    codes |= {store.WorkerLost.code, store.DeadlineExceeded.code}
    table = RUNBOOK[RUNBOOK.index("### Jobs fail") :]
    assert codes <= set(re.findall(r"`([a-z_]+)`", table))
