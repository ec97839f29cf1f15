"""The commands that talk to a service, in this process, against a real API."""

import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from api.store import leases
from sentinel import access
from sentinel.events import MessageLogged, MetricRecorded, Phase, PhaseStarted, Progressed
from sentinel.outcomes import ExitCode
from sentinel.replies import Job, Verdict
from tests.integration.api.conftest import CHECKPOINT, SPEC

UNKNOWN = "job_00000000000000000000000000000000"


@pytest.fixture
def job(service):
    """A running job that has said something of every kind."""
    made = service.submit()
    claim = service.claim()
    service.record(
        claim,
        PhaseStarted(phase=Phase.HEALING, cycle=1),
        MetricRecorded(name="healing_loss", value=1.5, step=1, cycle=1),
        MetricRecorded(name="healing_loss", value=1.25, step=2, cycle=1),
        MessageLogged(text="Cycle 1: [done]."),
        Progressed(fraction=0.5),
    )
    return SimpleNamespace(id=made["id"], claim=claim)


def test_jobs_are_listed_for_people_and_programs(command, answer, service, job):
    other = service.submit(name="other")
    assert [found["id"] for found in answer("list")["data"]] == [other["id"], job.id]
    assert [found["id"] for found in answer("list", "--limit", "1")["data"]] == [other["id"]]
    assert [found["id"] for found in answer("list", "--name", "other", "--state", "queued")["data"]] == [other["id"]]
    lines = command("list").out.splitlines()
    assert lines[0].split() == ["id", "name", "state", "phase", "done", "created"]
    assert lines[2].split()[:5] == [job.id, "small", "running", "healing", "50%"]


def test_one_job_is_shown(command, answer, job, service):
    assert Job.model_validate(answer("get", job.id)).progress == 0.5
    shown = dict(line.split(maxsplit=1) for line in command("get", job.id).out.splitlines())
    assert shown["state"].strip() == "running · healing"
    assert "error" not in shown
    with service.database.transaction() as session:
        error = {"code": "disk_full", "fault": "resource", "message": "It is full.", "next_step": "Empty it."}
        leases.fail(session, job.claim, error, retry=False)
    assert "disk_full: It is full. Empty it." in command("get", job.id).out


def test_history_is_printed_line_by_line(command, job):
    printed = command("events", job.id).out.splitlines()
    assert [line.split()[0] for line in printed] == [str(n + 1) for n in range(len(printed))]
    assert printed[-1].endswith("Cycle 1: [done].")
    assert "healing_loss 1.25 (step 2)" in printed[-2]
    later = command("events", job.id, "--after", "2", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in later] == list(range(3, len(printed) + 1))


def test_history_is_followed_to_the_end(command, job, service):
    service.finish(job.claim, {})
    last = json.loads(command("events", job.id, "--follow", "--json").out.splitlines()[-1])
    assert (last["type"], last["data"]["to"]) == ("state", "succeeded")


def test_numbers_are_summed_up_or_shown_in_full(command, answer, job):
    assert [point["value"] for point in answer("metrics", job.id)["healing_loss"]] == [1.5, 1.25]
    (row,) = command("metrics", job.id).out.splitlines()[1:]
    assert row.split() == ["healing_loss", "2", "1.5000", "1.2500", "1.2500", "1.5000"]
    assert len(command("metrics", job.id, "--name", "healing_loss").out.splitlines()) == 3
    assert answer("metrics", job.id, "--name", "other") == {}


def test_workers_and_strategies_are_listed(command, answer, service):
    assert answer("workers") == {"data": []}
    assert "obs" in [strategy["name"] for strategy in answer("strategies")["data"]]
    strategy = next(field for field in answer("fields")["data"] if field["name"] == "--prune.allocation")
    assert (strategy["default"], strategy["choices"]) == ("global", ["uniform", "global", "cost"])
    assert command("strategies").out.splitlines()[1].startswith("random")


def test_a_spec_is_checked_with_every_mistake_at_once(command, answer):
    good = command("validate", "--model", "builtin/gpt2", "--prune.target.sparsity", "0.25")
    assert good.code == 0
    assert "no worker is alive" in good.out.lower()
    wrong = ("validate", "--model", "/etc", "--prune.target.sparsity", "2", "--colour", "red")
    refused = command(*wrong)
    assert refused.code == ExitCode.WRONG_INPUT
    assert {line.split(":")[0] for line in refused.out.splitlines()} == {"/model", "/prune/target/sparsity", "/colour"}
    verdict = Verdict.model_validate(answer(*wrong))
    assert not verdict.valid
    assert len(verdict.errors) == 3


def test_submitting_the_same_with_a_key_of_ones_own_gives_the_same_job(command):
    submit = ("submit", "--model", "builtin/gpt2", "--prune.target.sparsity", "0.25", "--idempotency-key", "mine")
    assert command(*submit).out == command(*submit).out


def test_a_checkpoint_is_downloaded(command, answer, job, service, tmp_path):
    assert answer("download", job.id)["error"]["code"] == "no_checkpoint"
    service.stop(job.claim)
    assert answer("download", job.id, "pruned") == {"job_id": job.id, "folder": "pruned"}
    assert {f"checkpoint/{file.name}": file.read_bytes() for file in (tmp_path / "work/pruned").iterdir()} == CHECKPOINT
    assert command("download", job.id).out.strip() == job.id
    assert command("download", job.id).code == ExitCode.WRONG_INPUT


def test_watching_a_job_that_fails_ends_with_an_exit_code_of_its_own(command, job, service):
    error = {"code": "disk_full", "fault": "resource", "message": "It is full.", "next_step": "Empty it."}
    with service.database.transaction() as session:
        leases.fail(session, job.claim, error, retry=False)
    watched = command("watch", job.id)
    assert watched.code == ExitCode.JOB_DID_NOT_SUCCEED
    assert watched.out.splitlines() == ["disk_full: It is full.", "Empty it.", f"{job.id} failed"]
    assert watched.err.splitlines()[-3:] == [
        "Cycle 1: [done].",
        "failed: It is full.",
        "healing · cycle 1 · healing_loss 1.2500 · 50%",
    ]


def test_exit_codes_tell_what_was_wrong(command, answer, environment, tmp_path):
    unknown = command("get", UNKNOWN)
    assert (unknown.code, len(unknown.err.splitlines())) == (ExitCode.NOT_FOUND, 2)
    error = answer("get", UNKNOWN)["error"]
    assert error.keys() >= {"code", "message", "next_step", "fault", "status", "request_id", "errors"}
    assert error["code"] == "job_not_found"
    assert command("list", "--api-key", "sntl_wrong").code == ExitCode.NO_ACCESS
    environment.delenv("SENTINEL_API_KEY")
    assert command("list").code == ExitCode.NO_ACCESS
    mistakes = answer("submit", "--model", "builtin/gpt2")["error"]
    assert (mistakes["code"], mistakes["errors"][0]["pointer"]) == ("spec_invalid", "/prune")
    assert answer("watch")["error"]["code"] == "wrong_call"
    assert command("watch").code == command("watch", "--json").code == ExitCode.WRONG_INPUT


def test_a_service_that_does_not_answer_has_an_exit_code_of_its_own(command, answer, environment):
    environment.setattr(access, "QUICK_S", 0.0)
    environment.setenv("SENTINEL_URL", "http://127.0.0.1:1")
    assert command("list").code == ExitCode.UNREACHABLE
    assert answer("list")["error"]["code"] == "service_unreachable"


def test_the_embedded_service_is_found_where_it_has_written_itself_down(command, environment, service, tmp_path):
    home = tmp_path / "work/.sentinel"
    home.mkdir()
    (home / "url").write_text(os.environ["SENTINEL_URL"] + "\n")
    (home / "api_key").write_text(os.environ["SENTINEL_API_KEY"] + "\n")
    environment.delenv("SENTINEL_URL")
    environment.delenv("SENTINEL_API_KEY")
    assert command("list").code == 0
    environment.setenv("SENTINEL_HOME", str(home))
    environment.chdir(tmp_path)
    assert command("list").code == 0


def test_ctrl_c_ends_without_a_traceback(environment, service):
    waiting = service.submit()["id"]
    command = [sys.executable, "-P", "-m", "sentinel", "watch", waiting, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr.readline() == "waiting: No worker is alive.\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "interrupted"
    assert err.splitlines()[-1] == f"The job goes on; `sentinel watch {waiting}` shows it again."
    assert "Traceback" not in err


@pytest.fixture
def complete(command, environment):
    """What a shell is told behind these words."""

    def run(*words):
        environment.setenv("_SENTINEL_COMPLETE", "complete_bash")
        environment.setenv("COMP_WORDS", " ".join(["sentinel", *words]))
        environment.setenv("COMP_CWORD", str(len(words)))
        return command().out.split()

    return run


def test_a_shell_completes_fields_their_values_and_jobs(complete, environment, job):
    assert complete("submit", "--prune.tar") == [
        "--prune.target",
        *(f"--prune.target.{kind}" for kind in ("sparsity", "parameters", "flops", "kv_bytes", "latency_ms")),
    ]
    assert complete("submit", "--prio") == ["--priority"]
    assert complete("submit", "spec.yaml", "--prune.allocation", "") == ["uniform", "global", "cost"]
    assert complete("run", "--heal.compile", "t") == ["true"]
    assert complete("get", "") == [job.id]
    assert complete("get", "job_nothing") == []
    environment.setenv("SENTINEL_URL", "http://127.0.0.1:1")
    assert complete("get", "") == []


def test_a_first_spec_is_written_and_shown_to_the_service(command, answer, tmp_path):
    written = command("init", "--model", "builtin/gpt2", "--target", "0.25", "--purpose", "cache", "--no-heal", "--yes")
    assert written.code == 0
    assert written.out.splitlines()[:2] == ["Wrote spec.yaml.", "The spec is valid."]
    document = yaml.safe_load((tmp_path / "work/spec.yaml").read_text())
    assert document["prune"]["target"] == SPEC["prune"]["target"]
    assert (document["prune"]["units"], document["heal"]) == (["attention"], None)
    assert command("init", "--yes").code == ExitCode.WRONG_INPUT
    assert answer("init", "--yes", "--force")["verdict"]["valid"]
    assert command("submit", "spec.yaml").code == 0


def test_a_first_spec_is_asked_for(command, environment, tmp_path, service):
    environment.setenv("SENTINEL_URL", "http://127.0.0.1:1")
    answers = tmp_path / "answers"
    answers.write_text("distilgpt2\nmuch smaller\n60M\nspeed\n")
    with answers.open() as stdin:
        environment.setattr(sys, "stdin", stdin)
        asked = command("init", "wanted.yaml")
    assert asked.code == 0
    assert "'much smaller' is no target." in asked.out + asked.err
    assert "no service has seen it" in asked.out
    prune = yaml.safe_load((tmp_path / "work/wanted.yaml").read_text())["prune"]
    assert (prune["target"], prune["allocation"]) == ({"parameters": 60_000_000}, "uniform")


def test_ctrl_c_at_a_question_is_none_of_its_answers(command, environment):
    class Pressed(io.StringIO):
        def readline(self, *_):
            raise KeyboardInterrupt

    environment.setattr(sys, "stdin", Pressed())
    assert command("init").code == command("init", "--json").code == ExitCode.INTERRUPTED


def test_a_spec_that_this_service_refuses_is_written_nevertheless(command, tmp_path):
    refused = command("init", "--model", "/somewhere", "--yes")
    assert refused.code == ExitCode.WRONG_INPUT
    assert refused.out.splitlines()[1].startswith("/model")
    assert (tmp_path / "work/spec.yaml").exists()
