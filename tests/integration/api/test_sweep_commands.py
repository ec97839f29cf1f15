"""`sentinel sweep …`, in this process, against a real API."""

import yaml

from sentinel.client import SentinelClient
from sentinel.outcomes import ExitCode
from sentinel.replies import Sweep, SweepVerdict
from tests.integration.api.test_sweeps import SEEDS, SWEEP, finish


def written(tmp_path, document=SWEEP):
    """A sweep's file, in the folder where commands run."""
    (tmp_path / "work/sweep.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return "sweep.yaml"


def cells(line):
    """The values of a table's row, less those of its jobs."""
    return line.split()[:-1]


def test_a_sweep_from_its_check_to_its_table(command, answer, service, tmp_path):
    file = written(tmp_path)
    checked = command("sweep", "validate", file)
    assert [line.split() for line in checked.out.splitlines()] == [
        ["prune.strategy", "prune.target.sparsity"],
        *([strategy, sparsity] for strategy in ("obs", "taylor") for sparsity in ("0.25", "0.5")),
    ]
    submit = ("sweep", "submit", file, "--priority", "3", "--idempotency-key", "mine")
    sweep_id = command(*submit).out.strip()
    assert Sweep.model_validate(answer(*submit)).id == sweep_id
    assert {job["priority"] for job in service.client.get(f"/v1/jobs?sweep={sweep_id}").json()["data"]} == {3}

    finish(service, loss=1.5, parameters=3000, latency_ms=2.5)
    finish(service, loss=1.75, parameters=2000)
    finish(service, loss=1.75, parameters=2500)
    shown = command("sweep", "table", sweep_id).out.splitlines()
    assert [cells(line) for line in shown[1:]] == [
        ["*", "obs", "0.25", "succeeded", "1.5000", "0.1500", "3,000", "2.50"],
        ["*", "obs", "0.5", "succeeded", "1.7500", "0.1750", "2,000", "1.00"],
        ["taylor", "0.25", "succeeded", "1.7500", "0.1750", "2,500", "1.00"],
        ["taylor", "0.5", "queued"],
    ]
    front = answer("sweep", "table", sweep_id, "--front")["data"]
    assert [row["result"]["parameters"] for row in front] == [2000, 3000]
    assert len(answer("sweep", "table", sweep_id, "--pareto", "latency_ms")["data"]) == 4
    assert answer("sweep", "best", sweep_id, "--max-parameters", "2600")["result"]["parameters"] == 2000
    assert "1.5000" in command("sweep", "best", sweep_id).out
    nothing = command("sweep", "best", sweep_id, "--max-parameters", "10")
    assert (nothing.code, "The nearest" in nothing.err) == (ExitCode.WRONG_INPUT, True)

    known = dict(line.split(maxsplit=1) for line in command("sweep", "get", sweep_id).out.splitlines())
    assert known["jobs"].strip() == "1 queued, 3 succeeded"
    assert known["prune.target.sparsity"].strip() == "0.25, 0.5"
    (listed,) = answer("sweep", "list")["data"]
    assert (listed["id"], listed["points"]) == (sweep_id, 4)
    assert command("sweep", "list").out.splitlines()[1].split()[:3] == [sweep_id, "both", "4"]


def test_seeds_are_averaged_on_request(command, service, tmp_path):
    sweep_id = command("sweep", "submit", written(tmp_path, SEEDS)).out.strip()
    for loss in (1.0, 2.0):
        finish(service, loss=loss, parameters=1000)
    averaged = command("sweep", "table", sweep_id, "--average-seeds").out.splitlines()
    assert "1.5000 ±0.7071" in averaged[1]
    assert "succeeded" in averaged[1]
    assert "queued" in averaged[2]


def test_a_sweep_is_watched_to_its_end(command, answer, service, tmp_path):
    sweep_id = command("sweep", "submit", written(tmp_path)).out.strip()
    for parameters in (4, 3, 2, 1):
        finish(service, loss=1.0, parameters=parameters)
    watched = command("sweep", "watch", sweep_id)
    assert (watched.code, watched.err.splitlines()) == (0, ["4 succeeded · 100%"])
    assert [line.split()[0] for line in watched.out.splitlines()[1:]] == ["obs", "obs", "taylor", "*"]
    assert answer("sweep", "watch", sweep_id)["ended"]


def test_watching_a_sweep_that_is_cancelled_ends_with_an_exit_code_of_its_own(command, answer, tmp_path):
    sweep_id = command("sweep", "submit", written(tmp_path)).out.strip()
    assert answer("sweep", "cancel", sweep_id)["counts"]["cancelled"] == 4
    assert command("sweep", "watch", sweep_id).code == ExitCode.JOB_DID_NOT_SUCCEED


def test_a_change_of_a_job_is_told_while_a_sweep_is_watched(service, environment):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")
    document = {**SWEEP, "grid": {"prune.target.sparsity": [0.25]}}
    with SentinelClient(service.base_url, key) as client:
        sweep = client.submit_sweep(document)
        changes = client.sweep_changes(sweep.id)
        assert next(changes).counts["queued"] == 1
        finish(service, loss=1.0, parameters=1)
        assert [changed.ended for changed in changes][-1]
        assert client.wait_for_sweep(sweep.id).counts["succeeded"] == 1


def test_every_mistake_of_every_point_is_told(command, answer, tmp_path):
    grid = {"prune.target.sparsity": [0.25, 2], "prune.strategy": ["obs", "best"]}
    file = written(tmp_path, {**SWEEP, "grid": grid})
    checked = command("sweep", "validate", file)
    assert checked.code == ExitCode.WRONG_INPUT
    pointers = {"/grid/prune.target.sparsity/1", "/grid/prune.strategy/1"}
    assert {line.split(":")[0] for line in checked.out.splitlines()} == pointers
    verdict = SweepVerdict.model_validate(answer("sweep", "validate", file))
    assert {mistake.pointer for mistake in verdict.errors} == pointers
    refused = answer("sweep", "submit", file)["error"]
    assert (refused["code"], {mistake["pointer"] for mistake in refused["errors"]}) == ("sweep_invalid", pointers)
    assert command("sweep", "submit", "nothing.yaml").code == ExitCode.WRONG_INPUT
