"""The warm-up before the first cut: when it stops, that its model is the dense one, that killed runs have it."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from sentinel import experiment
from sentinel.display import result_tables
from sentinel.errors import CheckpointInvalid, DataInvalid, SpecInvalid
from sentinel.events import CheckpointSaved, MessageLogged, MetricRecorded, Phase, PhaseStarted, Progressed
from sentinel.heal_spec import Heal, WarmUp
from sentinel.inputs import load_inputs
from sentinel.models.evaluation import mean_loss
from sentinel.paths import BUILTIN_MODELS
from sentinel.warming import is_stable, reason_of
from tests.unit.test_experiment import Recorder, assert_same_weights, spec

BEFORE = WarmUp(steps=20, window=3, stable_below=0.01)
FALLING = [1.9, 2.0, 2.1, 1.7, 1.8, 1.9]


@pytest.mark.parametrize(
    ("losses", "stable"),
    [
        (FALLING, False),
        ([9.0, *FALLING], False),
        ([1.9, 2.0, 2.1, 1.979, 1.979, 1.979], False),
        ([1.9, 2.0, 2.1, 1.981, 1.981, 1.981], True),
        ([1.9, 2.0, 2.1, 3.0, 3.0, 3.0], True),
        ([9.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], True),
        ([2.0] * 5, False),
        ([0.0] * 6, False),
    ],
)
def test_the_loss_is_stable_when_two_windows_hardly_differ(losses, stable):
    assert is_stable(losses, BEFORE) == stable


def test_the_reason_has_the_figures():
    assert reason_of(FALLING, BEFORE, steps=20) == (
        "The loss is not stable after all 20 steps: the loss of the last 3 steps, 1.8000 in the mean, lies 10.000% "
        "below the 2.0000 of the 3 before, 1% or more."
    )
    rising = [1.9, 2.0, 2.1, 2.2, 2.2, 2.2]
    assert "stable after 9 of 20 steps" in reason_of(rising, BEFORE, steps=9)
    assert "2.2000 in the mean, lies 10.000% above the 2.0000" in reason_of(rising, BEFORE, steps=9)
    assert "too few" in reason_of([2.0] * 5, BEFORE, steps=5)


def test_the_warm_up_learns_the_text_whatever_healing_learns():
    heal = Heal(teacher_top_k=4, evaluate_every=5, patience=1, epochs=3, method="lora", learning_rate=1e-3)
    how = Heal.model_validate(heal.warming(BEFORE).model_dump())
    assert (how.loss, how.teacher_top_k, how.steps, how.epochs) == ("cross_entropy", None, 20, None)
    assert (how.evaluate_every, how.patience) == (None, None)
    assert (how.method, how.learning_rate) == ("lora", 1e-3)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ({"steps": 50, "window": 25}, "45 are left once the rate has risen: raise `before.steps` or lower"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"stable_below": 0}, "greater than 0"),
        ({"stable_below": 1}, "less than 1"),
        ({"until": 3}, "Extra inputs"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(before, message):
    with pytest.raises(SpecInvalid) as raised:
        spec(heal__before=before)
    (error,) = raised.value.errors
    assert message in error.message
    assert error.pointer.startswith("/heal")


@pytest.fixture(scope="module")
def unlearnt(tmp_path_factory):
    """The built-in model with some of what it knew taken away, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("unlearnt") / "llama"
    model = AutoModelForCausalLM.from_pretrained(BUILTIN_MODELS / "llama")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.add_(0.4 * parameter.std() * torch.randn_like(parameter))
    model.save_pretrained(folder)
    for file in (BUILTIN_MODELS / "llama").glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def warming(model, **changes):
    before = {"steps": 24, "window": 2, "stable_below": 1e-3}
    changes = {"heal__before": before, "heal__save_every": 4, "heal__steps": 6, "prune__cycles": 2, **changes}
    return spec(model=str(model), heal__learning_rate=1e-3, **changes)


@pytest.fixture(scope="module", params=["full", "lora"])
def warmed(request, unlearnt, tmp_path_factory):
    document = warming(unlearnt, heal__method=request.param)
    output, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return document, output, recorder, experiment.run(document, output=output, reporter=recorder, save_interval_s=0)


def test_the_warmed_up_model_is_the_dense_one(warmed):
    document, output, recorder, result = warmed
    record = result.warm_up
    inputs = load_inputs(document, allowed_roots=None)
    assert record.loaded_loss == mean_loss(inputs.dense, inputs.evaluation)
    assert record.loss < record.loaded_loss
    assert result.dense.loss == pytest.approx(record.loss, rel=1e-6)
    dense = AutoModelForCausalLM.from_pretrained(output / "dense").eval()
    assert mean_loss(dense, inputs.evaluation) == record.loss
    metrics = recorder.of(MetricRecorded)
    assert [event.value for event in metrics if event.name == "loaded_loss"] == [record.loaded_loss]
    assert [event.value for event in metrics if event.name == "dense_loss"] == [record.loss]
    assert [event.step for event in metrics if event.name == "warm_up_loss"] == list(range(1, record.steps + 1))
    assert next(event.step for event in metrics if event.name == "healing_loss") == record.steps + 1
    assert [event.phase for event in recorder.of(PhaseStarted)][:3] == [
        Phase.LOADING,
        Phase.WARMING_UP,
        Phase.MEASURING,
    ]
    fractions = [event.fraction for event in recorder.of(Progressed)]
    assert fractions == sorted(fractions)


def test_why_it_ended_is_told(warmed):
    _, output, recorder, result = warmed
    record = result.warm_up
    losses = [event.value for event in recorder.of(MetricRecorded) if event.name == "warm_up_loss"]
    stopped = [
        count
        for count in range(6, len(losses) + 1)
        if is_stable(losses[count - 4 : count], WarmUp(window=2, stable_below=1e-3))
    ]
    assert record.steps == (stopped[0] if stopped else 24)
    assert len(stopped) <= 1
    (told,) = [event.text for event in recorder.of(MessageLogged) if event.text.startswith("Warm-up")]
    assert told.endswith(record.reason)
    card = (output / "checkpoint" / "README.md").read_text()
    assert f"{record.loaded_loss:.4f}" in card
    assert "of cross-entropy before the first cut" in card
    console = Console(width=200, record=True)
    console.print(result_tables(result))
    assert f"loss before the warm-up of {record.steps} steps" in console.export_text()


def test_a_warm_up_that_does_harm_is_a_warning(tmp_path):
    recorder = Recorder()
    document = spec(heal__before={"steps": 6, "window": 2}, heal__learning_rate=3e-2, heal__steps=1, prune__cycles=1)
    record = experiment.run(document, output=tmp_path, reporter=recorder).warm_up
    assert record.loss > record.loaded_loss
    assert [event.level for event in recorder.of(MessageLogged) if event.text.startswith("Warm-up")] == ["warning"]


def test_the_dense_model_is_on_the_disk_once(warmed):
    """With every state from the end of the warm-up on; the names of states sort as they come."""
    _, output, recorder, result = warmed
    end = result.warm_up.steps
    warming = [f"cycle-0000-step-{step:08d}" for step in range(4, end, 4)]
    warm = [f"cycle-0000-step-{end:08d}", f"cycle-0000-step-{end + 4:08d}", "cycle-0001", "cycle-0001-step-00000004"]
    states = [*warming, *warm, "cycle-0002"]
    assert [Path(event.directory).name for event in recorder.of(CheckpointSaved)] == states
    assert sorted(path.name for path in (output / "state").iterdir()) == states
    files = [output / "dense", *(output / "state" / name / "dense" for name in states[len(warming) :])]
    assert len({(folder / "model.safetensors").stat().st_ino for folder in files}) == 1


@pytest.mark.parametrize(
    "place", ["in the warm-up", "at its end", "in the first healing", "after a cycle", "in the second healing"]
)
def test_a_killed_run_ends_with_the_same_weights(warmed, tmp_path, place):
    """Law 7, bit for bit: wherever it is killed, the dense model is the same."""
    document, whole, _, result = warmed
    steps = result.warm_up.steps
    state = {
        "in the warm-up": "cycle-0000-step-00000004",
        "at its end": f"cycle-0000-step-{steps:08d}",
        "in the first healing": f"cycle-0000-step-{steps + 4:08d}",
        "after a cycle": "cycle-0001",
        "in the second healing": "cycle-0001-step-00000004",
    }[place]
    second = Recorder()
    resumed = experiment.run(document, output=tmp_path, reporter=second, resume=whole / "state" / state)
    assert_same_weights(whole, tmp_path)
    assert resumed.warm_up == result.warm_up
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in result.cycles]
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    dense, same = (safetensors.torch.load_file(folder / "dense/model.safetensors") for folder in (whole, tmp_path))
    assert all(torch.equal(dense[name], same[name]) for name in dense)
    has_warmed = any(event.phase is Phase.WARMING_UP for event in second.of(PhaseStarted))
    assert has_warmed == (place == "in the warm-up")
    fractions = [event.fraction for event in second.of(Progressed)]
    assert fractions == sorted(fractions)


def test_a_state_that_has_lost_the_dense_model_is_refused(warmed, tmp_path):
    document, output, _, _ = warmed
    state = tmp_path / "state"
    state.mkdir()
    for name in ("state.json", "metrics.jsonl"):
        (state / name).write_bytes((output / "state/cycle-0001" / name).read_bytes())
    with pytest.raises(CheckpointInvalid):
        experiment.run(document, output=tmp_path / "out", reporter=Recorder(), resume=state)


def test_a_prompt_that_is_too_long_fails_before_the_warm_up(unlearnt, tmp_path):
    recorder = Recorder()
    with pytest.raises(DataInvalid, match="exceed the model's"):
        experiment.run(warming(unlearnt, evaluate__prompts=["One day " * 200]), output=tmp_path, reporter=recorder)
    assert not [event for event in recorder.of(PhaseStarted) if event.phase is Phase.WARMING_UP]
