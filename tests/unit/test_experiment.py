"""The main job on the built-in models, small: what it writes, that it resumes, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from sentinel import experiment
from sentinel.errors import (
    CheckpointInvalid,
    ControllerStateInvalid,
    DataInvalid,
    DiskFull,
    ExportImpossible,
    SpecInvalid,
)
from sentinel.events import (
    CheckpointSaved,
    Finished,
    MessageLogged,
    MetricRecorded,
    NeedsEstimated,
    Phase,
    PhaseStarted,
    Progressed,
)
from sentinel.inputs import load_inputs
from sentinel.models.document_isolation import isolate_documents
from sentinel.models.evaluation import mean_loss
from sentinel.paths import BUILTIN_MODELS
from sentinel.prune_spec import Target
from sentinel.pruning.costs import cost_of
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.visualization.group_states import State, states_over_cycles
from sentinel.pruning.visualization.reading import read_run
from sentinel.result import Result
from sentinel.spec import PathModel, parse_spec

pytestmark = pytest.mark.usefixtures("less_held_out_text")


class Recorder:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def spec(**changes):
    document = {
        "model": "builtin/llama",
        "data": {"source": "builtin", "sequence_length": 64},
        "prune": {
            "target": {"sparsity": 0.5},
            "cycles": 3,
            "strategy": "taylor",
            "allocation": "global",
            "compensation": "least_squares",
            "search": None,
            "calibration_sequences": 8,
        },
        "heal": {"steps": 3, "batch_tokens": 256, "learning_rate": 3e-4},
        "grow": None,
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
    for name in ("attention_groups", "attention_history", "losses", "healing", "size_path"):
        assert (output / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / "plots" / f"{name}.svg").stat().st_size > 0
        assert json.loads((output / "plots" / f"{name}.vl.json").read_bytes())["title"]
    assert not list((output / "checkpoint").glob("*.bin"))


def test_the_pictures_tell_what_the_run_did(finished):
    """Replayed from its records the groups are those that the checkpoint has; a divergence stands beside every loss."""
    output, recorder, result = finished
    run, series = read_run(output)
    states = states_over_cycles(result.cycles, run.dense_counts["attention"], "attention")
    left = [(s.layer, s.group) for s in states if s.cycle == 3 and s.state == State.KEPT]
    assert left == [(layer, group) for layer, groups in enumerate(run.kept["attention"]) for group in groups]
    assert [point.value for point in series["healed_loss"]] == [record.loss for record in result.cycles]
    assert series["healed_kl"][-1].value == pytest.approx(result.pruned.kl_to_dense, rel=1e-6)
    assert [len(series[f"{stage}_{what}"]) for stage in ("pruned", "healed") for what in ("loss", "kl")] == [3] * 4
    assert sum(map(len, series.values())) == len(recorder.of(MetricRecorded))


def test_the_result_tells_what_was_done(finished):
    _, recorder, result = finished
    assert result.dense.groups.attention == 16 or result.dense.groups.attention > 0
    assert result.pruned.groups.attention == result.dense.groups.attention // 2
    removed = result.removed["attention"]
    assert sum(map(len, removed.values())) == result.dense.groups.attention - result.pruned.groups.attention
    by_cycle = [groups for record in result.cycles for groups in record.removed.get("attention", {}).items()]
    assert {layer: sorted(g for at, groups in by_cycle if at == layer for g in groups) for layer in removed} == removed
    assert result.pruned.parameters < result.dense.parameters
    assert result.pruned.kv_bytes_per_token * 2 == result.dense.kv_bytes_per_token
    assert result.pruned.kl_to_dense > 0
    assert 0.5 < result.pruned.agreement < 1
    assert result.cycles[0].loss < result.cycles[0].loss_before_healing
    assert all(item.error_after <= item.error_before for record in result.cycles for item in record.compensation)
    memory = result.memory
    assert [event.memory_bytes for event in recorder.of(NeedsEstimated)] == [memory.estimated_bytes]
    assert memory.sentence() in [event.text for event in recorder.of(MessageLogged)]
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


def assert_same_weights(one, other):
    expected, actual = weights(one), weights(other)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize("cycle", [1, 2])
def test_a_killed_run_resumes_to_the_same_weights(finished, tmp_path, cycle):
    """Law 7, bit for bit."""
    whole, _, result = finished
    recorder, state = Recorder(), whole / "state" / f"cycle-{cycle:04d}"
    resumed = experiment.run(spec(), output=tmp_path, reporter=recorder, resume=state)
    assert_same_weights(whole, tmp_path)
    assert resumed.removed == result.removed
    assert [record.cycle for record in resumed.cycles] == [1, 2, 3]
    assert [event.cycle for event in recorder.of(CheckpointSaved)] == list(range(cycle + 1, 4))
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_a_run_with_what_to_do(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="No space is left"):
        experiment.run(spec(), output=tmp_path, reporter=Recorder())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_killed_in_its_healing_resumes_there_to_the_same_weights(tmp_path, method):
    document = spec(prune__cycles=2, heal__steps=12, heal__save_every=4, heal__method=method)
    first, whole = Recorder(), tmp_path / "whole"
    result = experiment.run(document, output=whole, reporter=first, save_interval_s=0)
    saved = [(event.cycle, event.step) for event in first.of(CheckpointSaved)]
    assert saved == [(0, 4), (0, 8), (1, None), (1, 4), (1, 8), (2, None)]
    state = whole / "state" / "cycle-0001-step-00000008"
    AutoModelForCausalLM.from_pretrained(state / "checkpoint", trust_remote_code=True)
    second = Recorder()
    resumed = experiment.run(document, output=tmp_path / "second", reporter=second, resume=state)
    assert [path.name for path in (tmp_path / "second" / "state").iterdir()] == ["cycle-0002"]  # none within a minute
    assert_same_weights(whole, tmp_path / "second")
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in result.cycles]
    assert (tmp_path / "second/metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert [e.phase for e in second.of(PhaseStarted)][:3] == [Phase.LOADING, Phase.MEASURING, Phase.HEALING]
    assert "Resumed at step 8 of healing cycle 2 of 2." in [event.text for event in second.of(MessageLogged)]
    fractions = [event.fraction for event in second.of(Progressed)]
    assert fractions == sorted(fractions)


def test_the_rate_falls_in_the_last_cycle(tmp_path, rates):
    """Before that it stays, also in an exchange, which is two steps of a copy's and two of its own."""
    changes = {"heal__steps": 2, "heal__warmup_fraction": 0.0, "heal__schedule": "linear", "heal__learning_rate": 1e-4}
    experiment.run(spec(prune__cycles=2, **changes, grow={"steps": 2}), output=tmp_path, reporter=Recorder())
    assert rates == pytest.approx([*6 * [1e-4], 1e-4, 0.5e-4])


def test_healing_is_measured_on_text_of_its_own_and_ends_with_the_best(tmp_path):
    recorder = Recorder()
    document = spec(prune__cycles=1, heal__steps=12, heal__evaluate_every=4, heal__learning_rate=3e-2)
    experiment.run(document, output=tmp_path, reporter=recorder)
    measured = [event for event in recorder.of(MetricRecorded) if event.name == "healing_held_out_loss"]
    assert [event.step for event in measured] == [4, 8, 12]
    inputs = load_inputs(document, allowed_roots=None)
    assert inputs.held_out.shape == (32, 64)
    (saved,) = recorder.of(CheckpointSaved)
    model = AutoModelForCausalLM.from_pretrained(Path(saved.directory) / "checkpoint", trust_remote_code=True).eval()
    best = min(event.value for event in measured)
    assert mean_loss(model, inputs.held_out) == pytest.approx(best, abs=1e-5)


def test_a_killed_run_with_both_units_and_a_search_resumes_to_the_same_weights(tmp_path):
    document = spec(
        prune__units=["attention", "mlp"],
        prune__cycles=2,
        prune__strategy="fisher",
        prune__compensation="residual_least_squares",
        prune__search={"evaluations": 4, "windows": 4},
    )
    whole = experiment.run(document, output=tmp_path / "whole", reporter=Recorder())
    state = tmp_path / "whole" / "state" / "cycle-0001"
    resumed = experiment.run(document, output=tmp_path / "second", reporter=Recorder(), resume=state)
    assert_same_weights(tmp_path / "whole", tmp_path / "second")
    assert resumed.removed == whole.removed
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in whole.cycles]


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


def test_the_defaults_beat_a_plain_score(tmp_path):
    """At the same size, on text that neither has seen; with a shorter search."""
    plain = experiment.run(
        spec(heal=None, prune__cycles=1, prune__allocation="uniform"), output=tmp_path / "plain", reporter=Recorder()
    )
    search = {"evaluations": 16, "windows": 8}
    changes = {"prune": {"target": {"sparsity": 0.5}, "calibration_sequences": 24, "search": search}, "heal": None}
    found = experiment.run(spec(**changes), output=tmp_path / "default", reporter=Recorder())
    assert found.pruned.groups == plain.pruned.groups
    assert found.pruned.kl_to_dense < plain.pruned.kl_to_dense


def test_nothing_removed_changes_nothing(tmp_path):
    result = experiment.run(
        spec(heal=None, prune__target__sparsity=0.0, prune__cycles=1), output=tmp_path, reporter=Recorder()
    )
    assert result.pruned.kl_to_dense == pytest.approx(0, abs=1e-6)
    assert result.pruned.agreement == 1
    assert result.pruned.loss == result.dense.loss
    assert result.export_form == "stock"


def test_the_other_builtin_model_uses_its_own_form(tmp_path):
    result = experiment.run(
        spec(model="builtin/gpt2", heal=None, prune__cycles=1, prune__allocation="uniform"),
        output=tmp_path,
        reporter=Recorder(),
    )
    assert result.export_form == "remote_code"


def reloaded_loss(output, document):
    """Of the checkpoint, loaded by transformers, on the text that the run evaluated on."""
    model = AutoModelForCausalLM.from_pretrained(output / "checkpoint", trust_remote_code=True).eval()
    return mean_loss(model, load_inputs(document, allowed_roots=None).evaluation)


@pytest.mark.parametrize("model", ["builtin/gpt2", "builtin/llama"])
def test_whole_layers_go_over_several_cycles_and_the_checkpoint_reloads(tmp_path, model):
    document = spec(
        model=model,
        heal=None,
        prune__units=["layer"],
        prune__strategy="obs",
        prune__target={"sparsity": 0.4},
        prune__schedule="linear",
        prune__cycles=2,
    )
    result = experiment.run(document, output=tmp_path, reporter=Recorder())
    sites = 2 * layers_of(document)
    gone = [(unit, layer) for unit, layers in result.removed.items() for layer in layers]
    assert len(gone) == int(sites * 0.4 + 0.5)
    assert all(len(groups) == max(groups) + 1 for layers in result.removed.values() for groups in layers.values())
    assert all(record.removed for record in result.cycles)
    assert reloaded_loss(tmp_path, document) == pytest.approx(result.pruned.loss, rel=1e-6)


@pytest.mark.parametrize("model", ["builtin/gpt2", "builtin/llama"])
def test_isolated_documents_stay_so_from_calibration_to_evaluation(tmp_path, model):
    """The reported loss is that of the checkpoint when its documents are kept apart, and no other."""
    changes = {"model": model, "prune__cycles": 1, "prune__compensation": "reconstruction", "heal__steps": 2}
    document = spec(**changes, data__isolate_documents=True)
    result = experiment.run(document, output=tmp_path, reporter=Recorder())
    assert result.protocol.description.endswith("Attention and positions stay within documents.")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", trust_remote_code=True).eval()
    inputs = load_inputs(document, allowed_roots=None)
    mixed = mean_loss(reloaded, inputs.evaluation)
    isolate_documents(reloaded, inputs.tokenizer.bos_token_id)
    assert mean_loss(reloaded, inputs.evaluation) == pytest.approx(result.pruned.loss, rel=1e-5)
    assert mixed != pytest.approx(result.pruned.loss, rel=3e-5)


def layers_of(document):
    inputs = load_inputs(document, allowed_roots=None)
    return len(inputs.family.layers(inputs.dense))


def dense_costs(document):
    """What the dense model costs, by kind of target."""
    inputs = load_inputs(document, allowed_roots=None)
    module = PruningModule(inputs.dense, inputs.family)
    calibration = module.calibration(inputs.calibration, document.prune, seed=0)
    return {kind: cost_of(kind, calibration).total for kind in ("parameters", "flops", "kv_bytes")}


@pytest.mark.parametrize(
    ("kind", "units", "share", "allocation"),
    [
        ("parameters", ["attention", "mlp"], 0.7, "cost"),
        ("flops", ["mlp"], 0.8, "uniform"),
        ("kv_bytes", ["attention"], 0.5, "uniform"),
        ("parameters", ["layer"], 0.8, "global"),
    ],
)
def test_a_cost_target_is_met_as_predicted(tmp_path, kind, units, share, allocation):
    """Over two cycles, each of which reaches its goal; predicted and measured agree to the last unit."""
    changes = {"heal": None, "prune__units": units, "prune__allocation": allocation, "prune__cycles": 2}
    target = int(share * dense_costs(spec(**changes))[kind])
    result = experiment.run(spec(**changes, prune__target={kind: target}), output=tmp_path, reporter=Recorder())
    costs = [record.cost for record in result.cycles]
    assert [cost.kind for cost in costs] == [kind, kind]
    assert all(cost.measured == cost.predicted <= cost.goal for cost in costs)
    assert costs[1].goal <= max(target, costs[0].measured)
    assert costs[1].measured <= target
    if kind == "parameters":
        assert result.pruned.parameters == costs[1].measured
    if kind == "kv_bytes":
        assert result.pruned.kv_bytes_per_token == costs[1].measured


def test_one_shot_cuts_once_whatever_the_cycles(tmp_path):
    target = int(0.9 * dense_costs(spec())["parameters"])
    document = spec(prune__schedule="one_shot", prune__cycles=2, prune__target={"parameters": target}, heal=None)
    result = experiment.run(document, output=tmp_path, reporter=Recorder())
    assert result.cycles[0].removed
    assert result.cycles[1].removed == {}


def test_a_loss_beyond_the_limit_stops_the_run_and_says_so(tmp_path):
    """The cycle that went too far is the last; what it left is measured and exported."""
    recorder = Recorder()
    result = experiment.run(
        spec(heal=None, prune__max_loss_increase=0.01, prune__compensation=None), output=tmp_path, reporter=recorder
    )
    assert 1 <= len(result.cycles) < 3
    assert result.cycles[-1].loss > result.dense.loss + 0.01
    assert all(record.loss <= result.dense.loss + 0.01 for record in result.cycles[:-1])
    (warning,) = [event for event in recorder.of(MessageLogged) if event.level == "warning"]
    assert "Stopped after cycle" in warning.text
    assert "prune.max_loss_increase 0.01" in warning.text
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


def test_a_loss_within_the_limit_stops_nothing(tmp_path):
    result = experiment.run(spec(heal=None, prune__max_loss_increase=50), output=tmp_path, reporter=Recorder())
    assert len(result.cycles) == 3


def test_protected_layers_are_untouched(tmp_path):
    result = experiment.run(
        spec(
            heal=None,
            prune__cycles=1,
            prune__units=["attention", "mlp"],
            prune__target={"sparsity": 0.25},
            prune__protected_layers=[0],
        ),
        output=tmp_path,
        reporter=Recorder(),
    )
    assert all(0 not in layers for layers in result.removed.values())
    assert all(result.removed.values())


def test_a_tokenizer_that_is_hardly_the_models_is_told_at_the_start(finished, tmp_path):
    folder = shutil.copytree(BUILTIN_MODELS / "llama", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 5}))
    recorder = Recorder()
    document = spec(model={"source": "path", "path": str(folder)}, heal=None, prune__cycles=1)
    experiment.run(document, output=tmp_path / "run", reporter=recorder)
    (warning,) = [event for event in recorder.of(MessageLogged) if event.level == "warning"]
    assert "BOS is 5. Check that this is the model's own tokenizer." in warning.text
    assert not [event for event in finished[1].of(MessageLogged) if event.level == "warning"]


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_search_is_told_and_lowers_what_it_measures(tmp_path, allocation):
    """Judged on the text it was measured on, so with the same calibration windows for everything."""
    changes = {"heal": None, "prune__cycles": 1, "prune__allocation": allocation, "prune__strategy": "random"}
    runs = [
        experiment.run(spec(**changes, prune__search=search), output=tmp_path / name, reporter=Recorder())
        for name, search in {"plain": None, "searched": {"evaluations": 80, "windows": 8}}.items()
    ]
    assert [run.cycles[0].evaluations > 0 for run in runs] == [False, True]
    assert runs[0].pruned.parameters == runs[1].pruned.parameters
    assert runs[1].pruned.kl_to_dense < runs[0].pruned.kl_to_dense


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prune__target__sparsity": 0.95}, SpecInvalid, "minimum_per_layer"),
        ({"prune__target__sparsity": 0.01}, SpecInvalid, "removes nothing"),
        ({"data__sequence_length": 4096}, DataInvalid, "4096, but the model reads"),
        ({"export": {"form": "stock"}}, ExportImpossible, "uniform|equal counts"),
        ({"prune__target": {"parameters": 10}}, SpecInvalid, "can be saved"),
        ({"prune__units": ["mlp"], "prune__target": {"kv_bytes": 10}}, SpecInvalid, "more units"),
        ({"prune__protected_layers": [0, 99]}, SpecInvalid, r"names \[99\]"),
        ({"prune__protected_layers": [0, 1, 2]}, SpecInvalid, "can be saved"),
        ({"evaluate__prompts": ["long " * 300]}, DataInvalid, "positions"),
        ({"device": "cuda:7"}, SpecInvalid, "no device"),
    ],
)
def test_what_must_fail_at_the_end_fails_at_the_start(tmp_path, changes, error, message):
    recorder = Recorder()
    with pytest.raises(error, match=message):
        experiment.run(spec(**changes), output=tmp_path, reporter=recorder)
    assert Phase.PRUNING not in [event.phase for event in recorder.of(PhaseStarted)]


GROW = {"steps": 2, "fraction": 0.1}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    output, recorder = tmp_path_factory.mktemp("grown"), Recorder()
    return output, recorder, experiment.run(spec(grow=GROW), output=output, reporter=recorder)


def test_groups_grow_between_two_cuts_and_the_size_is_what_was_asked_for(finished, grown):
    _, recorder, result = grown
    assert result.pruned.groups == finished[2].pruned.groups
    growths = [record.growth for record in result.cycles]
    assert growths[-1] is None
    for record, growth in zip(result.cycles[:-1], growths, strict=False):
        (unit,) = growth.grown
        assert unit == "attention"
        assert sum(map(len, growth.grown[unit].values())) == 2
        assert growth.accepted == ("stands" in growth.reason)
        assert set(growth.grown[unit]) <= set(growth.gains[unit])
        assert record.removed["attention"]
    told = [event.text for event in recorder.of(MessageLogged) if "grew 2 attention group(s). The ex" in event.text]
    assert len(told) == 2
    phases = [(event.phase, event.cycle) for event in recorder.of(PhaseStarted)]
    assert [cycle for phase, cycle in phases if phase is Phase.GROWING] == [1, 2]
    fractions = [event.fraction for event in recorder.of(Progressed)]
    assert fractions == sorted(fractions)


def test_the_limit_counts_what_a_cycle_ends_with(grown, tmp_path):
    """Its exchange comes behind its healing, and may leave another loss."""
    _, recorder, result = grown
    after = next(event.value for event in recorder.of(MetricRecorded) if event.name == "grown_loss")
    limit = (after + result.cycles[0].loss) / 2 - result.dense.loss
    assert after != result.cycles[0].loss
    limited = spec(grow=GROW, prune__max_loss_increase=limit)
    stopped = experiment.run(limited, output=tmp_path, reporter=Recorder())
    assert (len(stopped.cycles) == 1) == (after - result.dense.loss > limit)


def test_every_cycle_has_the_state_of_every_attention_group(grown):
    """As of its measurement, which is before its cut: withdrawn is what earlier ones took for good."""
    output, recorder, result = grown
    told = " ".join(event.text for event in recorder.of(MessageLogged))
    history = states_over_cycles(result.cycles, [4] * 4, "attention")
    there, before = {(layer, group) for layer in range(4) for group in range(4)}, set()
    for record in result.cycles:
        groups = [(layer, group) for layer, states in record.states.items() for group in range(len(states))]
        withdrawn = {(layer, group) for layer, group in groups if record.states[layer][group] == "withdrawn"}
        assert len(groups) == 16
        assert withdrawn == set(groups) - there
        assert (f"Cycle {record.cycle}: States of" in told) == (withdrawn != before)
        there = {
            (s.layer, s.group) for s in history if s.cycle == record.cycle and s.state in (State.KEPT, State.GROWN)
        }
        before = withdrawn
    assert "active" in result.cycles[0].states[0]
    assert json.loads((output / "plots" / "state_map.vl.json").read_bytes())["title"]


@pytest.mark.parametrize("state", ["cycle-0000-step-00000003", "cycle-0001"], ids=["before", "after"])
def test_a_run_killed_at_its_growth_resumes_to_the_same_weights(grown, tmp_path, state):
    whole, _, result = grown
    resumed = experiment.run(spec(grow=GROW), output=tmp_path, reporter=Recorder(), resume=whole / "state" / state)
    assert_same_weights(whole, tmp_path)
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in result.cycles]
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def controlled(**controller):
    return spec(
        grow={"steps": 2, "fraction": 0.2},
        controller=controller,
        prune__target={"sparsity": 0.6},
        prune__cycles=4,
        heal__steps=5,
    )


@pytest.fixture(scope="module", params=["rule", "learned"])
def decided(request, tmp_path_factory):
    document = controlled(kind=request.param)
    output, recorder = tmp_path_factory.mktemp(request.param), Recorder()
    return document, output, recorder, experiment.run(document, output=output, reporter=recorder)


def test_a_controller_decides_about_every_cycle_and_ends_where_the_schedule_would(decided):
    document, output, recorder, result = decided
    assert (result.dense.groups.attention, result.pruned.groups.attention) == (16, 6)
    decisions = [record.decision for record in result.cycles]
    assert decisions[-1].progress == 1
    assert [d.progress for d in decisions] == sorted(d.progress for d in decisions)
    assert sum(record.healing_steps for record in result.cycles) <= 4 * document.heal.steps
    assert [record.healing_steps for record in result.cycles] == [d.steps for d in decisions]
    for record in result.cycles:
        assert (record.growth is not None) <= (record.decision.grow > 0)
        assert set(record.signals) == {"importance", "entropy", "utilisation", "gradient_norm"}
        assert record.watched_cut_loss > 0
    told = [event.text for event in recorder.of(MessageLogged)]
    assert all(f"Cycle {record.cycle}: {record.decision.reason}" in told for record in result.cycles)
    progress = [event.value for event in recorder.of(MetricRecorded) if event.name == "controller_progress"]
    assert progress == [d.progress for d in decisions]
    learned = document.controller.kind == "learned"
    assert (output / "checkpoint" / "controller.json").is_file() == learned


def test_a_controlled_run_that_is_killed_decides_and_ends_as_it_would_have(decided, tmp_path):
    document, whole, _, result = decided
    resumed = experiment.run(document, output=tmp_path, reporter=Recorder(), resume=whole / "state" / "cycle-0002")
    assert_same_weights(whole, tmp_path)
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in result.cycles]
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_later_run_starts_from_what_a_learned_controller_knew(decided, tmp_path):
    document, output, _, _ = decided
    again = controlled(kind="learned", state="checkpoint")
    less = again.prune.model_copy(update={"target": Target(sparsity=0.3), "cycles": 2})
    again = again.model_copy(update={"model": PathModel(path=str(output / "checkpoint")), "prune": less})
    if document.controller.kind == "rule":
        with pytest.raises(ControllerStateInvalid, match=r"no controller\.json"):
            experiment.run(again, output=tmp_path, reporter=Recorder())
        return
    experiment.run(again, output=tmp_path, reporter=Recorder())
    before, after = (json.loads((folder / "checkpoint/controller.json").read_text()) for folder in (output, tmp_path))
    assert before != after
