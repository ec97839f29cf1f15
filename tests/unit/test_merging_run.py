"""Runs that merge groups: of a built-in model one head of which was copied into another."""

import copy
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM

from sentinel import experiment
from sentinel.events import MessageLogged
from sentinel.inputs import load_inputs
from sentinel.models.families import family_of
from sentinel.paths import BUILTIN_MODELS
from sentinel.plasticity import Exchange
from sentinel.prune_spec import Target
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.test_merging import make_copy
from tests.unit.test_experiment import Recorder, assert_same_weights, spec

pytestmark = pytest.mark.usefixtures("less_held_out_text")


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """Head 2 of layer 1 puts out half of what head 0 does."""
    folder = tmp_path_factory.mktemp("doubled") / "llama"
    model = AutoModelForCausalLM.from_pretrained(BUILTIN_MODELS / "llama").requires_grad_(requires_grad=False)
    make_copy(model, family_of("llama"), "attention", 1, group=2, of=0, factor=0.5)
    model.save_pretrained(folder)
    for file in (BUILTIN_MODELS / "llama").glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module", params=[{"sparsity": 0.5}, {"parameters": 700_000}], ids=["sparsity", "parameters"])
def merged(request, doubled, tmp_path_factory):
    document = spec(model=str(doubled), prune__merge=0.99, prune__cycles=2, prune__target=request.param)
    output, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return document, output, recorder, experiment.run(document, output=output, reporter=recorder)


def test_a_run_merges_tells_and_counts_it(merged):
    document, output, recorder, result = merged
    first = result.cycles[0]
    record = next(item for item in first.merged if (item.layer, item.group) == (1, 2))
    assert (record.unit, record.partner) == ("attention", 0)
    assert record.cosine > 0.99999
    assert 2 in first.removed["attention"][1]
    assert first.cost.measured <= first.cost.goal * (1 + 1e-9)
    told = [event.text for event in recorder.of(MessageLogged) if "merged" in event.text]
    assert any("of layer 1: 2 into 0 (cosine 1.0000)" in text for text in told)
    assert "2 into 0" in (output / "checkpoint" / "README.md").read_text()
    if document.prune.target.kind == "sparsity":
        assert result.pruned.groups.attention == result.dense.groups.attention // 2
    else:
        assert result.pruned.parameters <= 700_000


def test_a_killed_run_that_merges_ends_with_the_same_weights(merged, tmp_path):
    document, whole, _, result = merged
    resumed = experiment.run(document, output=tmp_path, reporter=Recorder(), resume=whole / "state" / "cycle-0001")
    assert_same_weights(whole, tmp_path)
    assert [r.model_dump() for r in resumed.cycles] == [r.model_dump() for r in result.cycles]


@pytest.mark.parametrize("kind", ["sparsity", "parameters"])
def test_an_exchange_is_cut_back_by_merging_first(doubled, kind):
    """Half of the groups are gone, but both of those that are alike are left; the size ends as it was."""
    document = spec(model=str(doubled), prune__merge=0.99, prune__cycles=2, grow={"steps": 2, "fraction": 0.1})
    inputs = load_inputs(document, allowed_roots=None)
    module = PruningModule(copy.deepcopy(inputs.dense), inputs.family)
    calibration = module.calibration(inputs.calibration, document.prune, seed=0)
    module.cut(calibration, {"attention": {0: [0, 1, 2], 2: [0, 1, 2], 3: [0, 1]}}, compensation=None)
    size = sum(parameter.numel() for parameter in module.model.parameters())
    target = Target(sparsity=0.5) if kind == "sparsity" else Target(parameters=size)
    prune = document.prune.model_copy(update={"target": target})
    swap = Exchange(inputs=inputs, prune=prune, how=document.grow, heal=document.heal, seed=1, progress=1.0)
    _, record = swap.attempt(module, lambda taken: Observer())
    first = record.merged[0]
    assert (first.unit, first.layer, {first.group, first.partner}) == ("attention", 1, {0, 2})
    assert all(item.group in record.removed["attention"][item.layer] for item in record.merged)
    grown, gone = (sum(map(len, side["attention"].values())) for side in (record.grown, record.removed))
    assert gone == grown
    assert size == sum(parameter.numel() for parameter in module.model.parameters())
    without = prune.model_copy(update={"merge": None})
    assert replace(swap, prune=without).attempt(module, lambda taken: Observer())[1].merged == []
