"""The commands that talk to a service, against a running one: those that wait for a job as processes of their own."""

import json
import subprocess
import sys

import pytest
import yaml

from sentinel import cli
from sentinel.replies import Job


@pytest.fixture
def environment(service, tmp_path, monkeypatch):
    """Address and key of the service, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTINEL_URL", service.base_url)
    monkeypatch.setenv("SENTINEL_API_KEY", service.api_key)
    return monkeypatch


@pytest.fixture
def process(environment):
    def run(*arguments):
        command = [sys.executable, "-P", "-m", "sentinel", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def command(environment, capsys):
    """Call a command in this process, which has its imports behind it."""

    def run(*arguments):
        environment.setattr(sys, "argv", ["sentinel", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, printed.out, printed.err)

    return run


def test_a_job_from_submit_to_download(process, command, tiny_spec, tmp_path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(tiny_spec()))
    submitted = process("submit", "spec.yaml", "--name", "by command", "--watch", "--json")
    assert submitted.returncode == 0, submitted.stderr
    job = Job.model_validate_json(submitted.stdout)
    assert (job.state, job.name) == ("succeeded", "by command")
    assert "pruning · cycle 1" in submitted.stderr

    watched = process("watch", job.id)
    assert "KV cache" in watched.stdout
    assert f"{job.id} succeeded" in watched.stdout
    assert job.id in command("list", "--name", "by command").stdout
    (listed,) = json.loads(command("list", "--name", "by command", "--json").stdout)["data"]
    assert listed["id"] == job.id
    assert "100%" in command("get", job.id).stdout

    downloaded = command("download", job.id, "pruned")
    assert downloaded.stdout.strip() == "pruned"
    assert (tmp_path / "pruned" / "model.safetensors").is_file()
    again = command("download", job.id, "pruned")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_job_is_cancelled_and_watching_it_says_so(command, tiny_spec, tmp_path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(tiny_spec(steps=1_000_000)))
    job_id = command("submit", "spec.yaml", "--priority", "3", "--not-before", "2999-01-01").stdout.strip()
    (shown,) = json.loads(command("list", "--json", "--limit", "1").stdout)["data"]
    assert (shown["id"], shown["state"]) == (job_id, "queued")
    assert command("pause", job_id).stdout.strip() == "paused"
    assert command("resume", job_id).stdout.strip() == "queued"
    assert command("cancel", job_id).stdout.strip() == "cancelled"
    again = json.loads(command("retry", job_id, "--from-start", "--json").stdout)
    assert (again["parent_id"], again["spec"]["heal"]["steps"]) == (job_id, 1_000_000)
    command("cancel", again["id"])
    watched = command("watch", job_id)
    assert watched.returncode == 3
    assert f"{job_id} cancelled" in watched.stdout


def test_the_embedded_service_is_found_by_what_it_has_written_down(command, environment, service):
    for name in ("SENTINEL_URL", "SENTINEL_API_KEY"):
        environment.delenv(name)
    environment.setenv("SENTINEL_HOME", str(service.key_file.parent))
    assert command("list").returncode == 0


def test_refusals_come_with_what_to_do(command):
    unknown = command("watch", "job_00000000000000000000000000000000")
    assert unknown.returncode == 5
    assert "Traceback" not in unknown.stderr
    assert len(unknown.stderr.strip().splitlines()) >= 2
