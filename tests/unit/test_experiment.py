"""The main job on the built-in models, small: what it writes, that it resumes, what it refuses."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from sentinel import experiment
from sentinel.errors import CheckpointInvalid, DataInvalid, ExportImpossible, SpecInvalid
from sentinel.events import CheckpointSaved, Finished, MetricRecorded, Phase, PhaseStarted, Progressed
from sentinel.result import Result
from sentinel.spec import parse_spec


class Recorder:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Killed(Exception):
    """Stands for SIGKILL: nothing after it runs."""


class KilledAfter(Recorder):
    """Dies when the state of `cycle` is saved, or some healing steps into the next one."""

    def __init__(self, cycle, steps):
        super().__init__()
        self.cycle, self.steps = cycle, steps

    def emit(self, event):
        super().emit(event)
        if [saved.cycle for saved in self.of(CheckpointSaved)] == list(range(1, self.cycle + 1)):
            last_save = max(i for i, seen in enumerate(self.events) if isinstance(seen, CheckpointSaved))
            healing = [e for e in self.events[last_save:] if isinstance(e, MetricRecorded) and e.name == "healing_loss"]
            if len(healing) >= self.steps:
                raise Killed


def spec(**changes):
    document = {
        "model": "builtin/llama",
        "data": {"source": "builtin", "sequence_length": 64},
        "prune": {"target": {"sparsity": 0.5}, "cycles": 3, "allocation": "global", "calibration_sequences": 8},
        "heal": {"steps": 3, "batch_tokens": 256, "learning_rate": 3e-4},
        "evaluate": {"tokens": 1024, "prompts": ["One day"]},
        "device": "cpu",
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        here = document
        for key in parents:
            here = here[key]
        here[last] = value
    return parse_spec(document)


def weights(output):
    return safetensors.torch.load_file(output / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return output, recorder, experiment.run(spec(), output=output, reporter=recorder)


def test_the_output_folder_is_complete(finished):
    output, recorder, result = finished
    assert Result.model_validate_json((output / "result.json").read_bytes()) == result
    assert recorder.of(Finished) == [Finished(result=result.model_dump(mode="json"))]
    assert recorder.events[-1] == recorder.of(Finished)[0]
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [event.model_dump(exclude={"type"}) for event in recorder.of(MetricRecorded)]
    assert sum(line["name"] == "healing_loss" for line in metrics) == 9
    for plot in ("groups.png", "losses.png"):
        assert (output / "plots" / plot).read_bytes().startswith(b"\x89PNG")
    assert not list((output / "checkpoint").glob("*.bin"))


def test_the_result_tells_what_was_done(finished):
    _, _, result = finished
    assert result.dense.groups.attention == 16 or result.dense.groups.attention > 0
    assert result.pruned.groups.attention == result.dense.groups.attention // 2
    removed = result.removed["attention"]
    assert sum(map(len, removed.values())) == result.dense.groups.attention - result.pruned.groups.attention
    by_cycle = [groups for record in result.cycles for groups in record.removed["attention"].items()]
    assert {layer: sorted(g for at, groups in by_cycle if at == layer for g in groups) for layer in removed} == removed
    assert result.pruned.parameters < result.dense.parameters
    assert result.pruned.kv_bytes_per_token * 2 == result.dense.kv_bytes_per_token
    assert result.pruned.kl_to_dense > 0
    assert result.cycles[0].loss < result.cycles[0].loss_before_healing
    assert all(item.error_after <= item.error_before for record in result.cycles for item in record.compensation)
    assert set(result.timings_s) >= {"loading", "pruning", "healing", "evaluating", "exporting"}


def test_progress_only_rises_and_phases_come_in_order(finished):
    _, recorder, _ = finished
    fractions = [event.fraction for event in recorder.of(Progressed)]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] < 1
    cycle = [Phase.PRUNING, Phase.HEALING]
    assert [event.phase for event in recorder.of(PhaseStarted)] == [
        Phase.LOADING,
        Phase.MEASURING,
        *cycle * 3,
        Phase.EVALUATING,
        Phase.EXPORTING,
    ]


def test_the_checkpoint_gives_the_reported_loss(finished):
    output, _, result = finished
    model = AutoModelForCausalLM.from_pretrained(output / "checkpoint", trust_remote_code=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == result.pruned.parameters


@pytest.mark.parametrize(("cycle", "steps"), [(1, 0), (1, 2), (2, 1)])
def test_a_killed_run_resumes_to_the_same_weights(finished, tmp_path, cycle, steps):
    """Law 7, bit for bit."""
    whole, _, result = finished
    with pytest.raises(Killed):
        experiment.run(spec(), output=tmp_path / "first", reporter=KilledAfter(cycle, steps))
    state = tmp_path / "first" / "state" / f"cycle-{cycle:04d}"
    shutil.move(state, tmp_path / "state")
    recorder = Recorder()
    resumed = experiment.run(spec(), output=tmp_path / "second", reporter=recorder, resume=tmp_path / "state")
    expected, actual = weights(whole), weights(tmp_path / "second")
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert resumed.removed == result.removed
    assert [record.cycle for record in resumed.cycles] == [1, 2, 3]
    assert [event.cycle for event in recorder.of(CheckpointSaved)] == list(range(cycle + 1, 4))
    assert (tmp_path / "second" / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_state_of_another_spec_is_refused(finished, tmp_path):
    output, _, _ = finished
    with pytest.raises(CheckpointInvalid, match="another spec"):
        experiment.run(spec(seed=9), output=tmp_path, reporter=Recorder(), resume=output / "state" / "cycle-0001")


def test_without_healing_or_compensation(tmp_path):
    result = experiment.run(
        spec(heal=None, prune__compensation=None, prune__cycles=1, prune__strategy="magnitude"),
        output=tmp_path,
        reporter=Recorder(),
    )
    assert result.cycles[0].compensation == []
    assert result.cycles[0].loss == result.cycles[0].loss_before_healing
    assert "healing" not in result.timings_s


def test_nothing_removed_changes_nothing(tmp_path):
    result = experiment.run(
        spec(heal=None, prune__target__sparsity=0.0, prune__cycles=1), output=tmp_path, reporter=Recorder()
    )
    assert result.pruned.kl_to_dense == pytest.approx(0, abs=1e-6)
    assert result.pruned.loss == result.dense.loss
    assert result.export_form == "stock"


def test_the_other_builtin_model_uses_its_own_form(tmp_path):
    result = experiment.run(
        spec(model="builtin/gpt2", heal=None, prune__cycles=1, prune__allocation="uniform"),
        output=tmp_path,
        reporter=Recorder(),
    )
    assert result.export_form == "remote_code"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prune__target__sparsity": 0.95}, SpecInvalid, "minimum_per_layer"),
        ({"prune__target__sparsity": 0.01}, SpecInvalid, "removes no group"),
        ({"data__sequence_length": 4096}, DataInvalid, "4096, but the model reads"),
        ({"export": {"form": "stock"}}, ExportImpossible, "uniform|equal counts"),
        ({"evaluate__prompts": ["long " * 300]}, DataInvalid, "positions"),
        ({"device": "cuda:7"}, SpecInvalid, "no device"),
    ],
)
def test_what_must_fail_at_the_end_fails_at_the_start(tmp_path, changes, error, message):
    recorder = Recorder()
    with pytest.raises(error, match=message):
        experiment.run(spec(**changes), output=tmp_path, reporter=recorder)
    assert Phase.PRUNING not in [event.phase for event in recorder.of(PhaseStarted)]
