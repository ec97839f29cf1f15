"""`sentinel plot` on output folders: one run, several, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from sentinel.cli import app
from sentinel.manifest import Machine, Manifest, Run, Sources, ranges
from sentinel.plot_command import RunsIncomparable
from sentinel.pruning.visualization.reading import RunUnreadable, read_run
from tests.unit.pruning.visualization.records import everything, result


def write_run(folder, **changes):
    """An output folder, as far as pictures need it."""
    run, series = everything()
    run = Run(
        spec=run.spec,
        result=result(run.result.cycles, **changes),
        kept=run.kept,
        dense_counts=run.dense_counts,
    )
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "result.json").write_text(run.result.model_dump_json())
    manifest = Manifest(
        spec=run.spec.model_dump(mode="json"),
        versions={},
        machine=Machine(device="cpu", threads=1, platform="Linux"),
        sources=Sources(commit=None, text_commit=None, model={}, text={}, tasks={}),
        tokens={},
        kept={unit: [ranges(groups) for groups in layers] for unit, layers in run.kept.items()},
        dense_counts=run.dense_counts,
        result={},
        files={},
    )
    (folder / "checkpoint" / "sentinel.json").write_text(manifest.model_dump_json())
    lines = [json.dumps({"name": name, **point._asdict()}) for name, points in series.items() for point in points]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return run, series


def plot(*arguments):
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


def test_a_folder_is_read_as_the_run_that_wrote_it(tmp_path):
    run, series = write_run(tmp_path / "run")
    assert read_run(tmp_path / "run") == (run, series)


def test_one_run_is_drawn_with_a_page(tmp_path):
    write_run(tmp_path / "run")
    told = plot(tmp_path / "run", "--output", tmp_path / "plots")
    assert told.exit_code == 0, told.output
    assert "healing_loss" in told.output
    names = {file.name for file in (tmp_path / "plots").iterdir()}
    assert {"index.html", "losses.png", "losses.svg", "losses.vl.json", "decisions.png"} <= names


def test_several_runs_are_compared(tmp_path):
    for name, parameters in {"one/run": 60, "two/run": 50, "three": 40}.items():
        write_run(tmp_path / name, parameters=parameters)
    runs = [tmp_path / "one/run", tmp_path / "two/run", tmp_path / "three"]
    told = plot(*runs, "--output", tmp_path / "plots", "--json")
    found = json.loads(told.stdout)
    assert found["last"]["healed_loss"] == {str(runs[0]): 0.75, str(runs[1]): 0.75, "three": 0.75}
    assert "pareto_parameters" in found["charts"]
    assert "healing_loss_of_runs" in found["charts"]
    drawn = json.loads((tmp_path / "plots" / "pareto_parameters.vl.json").read_bytes())
    (points,) = drawn["datasets"].values()
    assert {point["name"]: point["cost"] for point in points} == {
        str(runs[0]): 60,
        str(runs[1]): 50,
        "three": 40,
        "dense": 100,
    }


def test_folders_are_named_as_they_are(tmp_path):
    names = ["run[obs]", "[bold]"]
    for name in names:
        write_run(tmp_path / name)
    told = plot(*(tmp_path / name for name in names), "--output", tmp_path / "plots")
    assert told.output.splitlines()[0].split() == ["last", "value", "of", *names]


def test_runs_on_other_texts_are_not_compared(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", text="another")
    told = plot(tmp_path / "a", tmp_path / "b", "--output", tmp_path / "plots")
    assert isinstance(told.exception, RunsIncomparable)
    assert "a and b" in told.exception.message
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("damage", ["result.json", "checkpoint/sentinel.json"])
def test_what_is_no_run_is_refused(tmp_path, damage):
    write_run(tmp_path / "run")
    (tmp_path / "run" / damage).write_text("{}")
    told = plot(tmp_path / "run", "--output", tmp_path / "plots")
    assert isinstance(told.exception, RunUnreadable)
    assert f"What the run in {tmp_path / 'run'} has left is damaged" in told.exception.message


def test_a_run_that_has_not_ended_is_told_from_a_damaged_one(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    told = plot(tmp_path / "run", "--output", tmp_path / "plots")
    assert isinstance(told.exception, RunUnreadable)
    assert told.exception.message == f"There is no run in {tmp_path / 'run'} that has ended."
