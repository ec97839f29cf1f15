"""Groups that do the same become one before a cut: nothing is lost by it, and it counts."""

import pytest

from sentinel.errors import SpecInvalid
from sentinel.pruning.consolidation import consolidate, sentences, union
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import MergeRecord
from sentinel.spec import parse_spec
from tests.unit.pruning.test_merging import make_copy
from tests.unit.pruning.tiny import calibrate, prune

ONE, QUARTER = {"sparsity": 1 / 12}, {"sparsity": 0.25}


def merging(**settings):
    """Of 12 attention groups in three layers, unless told otherwise."""
    return prune(**{"merge": 0.999, "allocation": "global", "target": ONE, **settings})


def _share_of_the_cost(module, calibration, target, share):
    return int(share * module.demand(calibration, prune(target={target: 1})).cost.total)


@pytest.mark.parametrize("factor", [0.5, -0.8])
def test_a_copied_head_is_found_and_goes_without_a_trace(model, family, windows, factor):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=factor)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    before = model(input_ids=windows).logits
    done = consolidate(module, calibration, merging())
    (record,) = done.merged
    assert (record.unit, record.layer, record.group, record.partner) == ("attention", 1, 2, 0)
    assert record.cosine == pytest.approx(1 if factor > 0 else -1, abs=1e-6)
    assert done.removed == {"attention": {1: [2]}}
    assert module.kept["attention"] == [[0, 1, 2, 3], [0, 1, 3], [0, 1, 2, 3]]
    assert [(item.unit, item.layer) for item in done.compensation] == [("attention", 1)]
    after = model(input_ids=windows).logits
    # The least ridge that a repair tries is 1e-4 of the mean diagonal.
    assert float((after - before).abs().max()) < 1e-3 * float(before.abs().max())


@pytest.mark.parametrize("target", ["sparsity", "parameters", "kv_bytes"])
@pytest.mark.parametrize(("before", "progress"), [(0.0, 1.0), (0.0, 0.6), (0.3, 0.8)])
def test_what_is_merged_counts_towards_the_goal(model, family, windows, target, before, progress):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    value = 0.5 if target == "sparsity" else _share_of_the_cost(module, calibration, target, 0.8)
    asked = merging(target={target: value})
    goal = module.demand(calibration, asked, before=before, progress=progress).goal
    done = consolidate(module, calibration, asked, before=before, progress=progress)
    assert len(done.merged) == 1
    selection = module.select(calibration, asked, before=done.before, progress=done.progress)
    assert selection.goal == pytest.approx(goal, rel=1e-9)
    assert selection.predicted <= goal * (1 + 1e-9)


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_what_saves_nothing_by_the_target_stays(model, family, windows, progress):
    """Neurons hold no keys and values, however alike they are."""
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    for group in range(1, 18, 2):
        make_copy(model, family, "mlp", 0, group=group, of=group - 1, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows)
    target = {"kv_bytes": _share_of_the_cost(module, calibration, "kv_bytes", 0.9)}
    asked = merging(units=["attention", "mlp"], target=target)
    done = consolidate(module, calibration, asked, progress=progress)
    assert done.removed == ({"attention": {1: [2]}} if progress else {})


def test_once_the_goal_is_reached_nothing_is_cut(model, family, windows):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    done = consolidate(module, calibration, merging())
    assert module.select(calibration, merging(), before=done.before, progress=done.progress).cut == {}


def test_no_more_goes_than_the_goal_needs_and_the_nearest_go_first(model, family, windows):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    done = consolidate(module, calibration, merging(merge=1e-6, target={"sparsity": 2 / 12}))
    assert len(done.merged) == 2
    first, _ = sorted(done.merged, key=lambda record: -abs(record.cosine))
    assert (first.layer, first.group) == (1, 2)


@pytest.mark.parametrize("fence", [{"minimum_per_layer": 4}, {"protected_layers": [1]}])
def test_floors_and_fences_hold(model, family, windows, fence):
    for group in (1, 2, 3):
        make_copy(model, family, "attention", 1, group=group, of=0, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    done = consolidate(module, calibration, merging(target=QUARTER, **fence))
    assert (done.merged, done.removed) == ([], {})
    assert len(module.kept["attention"][1]) == 4


def test_a_layer_stops_at_its_floor(model, family, windows):
    for group in (1, 2, 3):
        make_copy(model, family, "attention", 1, group=group, of=0, factor=0.5**group)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    done = consolidate(module, calibration, merging(target={"sparsity": 0.5}, minimum_per_layer=3))
    assert len(done.merged) == 1
    assert len(module.kept["attention"][1]) == 3


def test_under_uniform_layers_stay_even(model, family, windows):
    for group in (1, 2, 3):
        make_copy(model, family, "attention", 1, group=group, of=0, factor=0.5**group)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    asked = merging(target=QUARTER, allocation="uniform")
    done = consolidate(module, calibration, asked)
    assert len(done.merged) == 1
    selection = module.select(calibration, asked, before=done.before, progress=done.progress)
    module.cut(calibration, selection.cut, compensation=None)
    assert [len(groups) for groups in module.kept["attention"]] == [3, 3, 3]


@pytest.mark.parametrize(("copies", "gone"), [(7, 0), (9, 8)])
def test_neurons_go_in_blocks(model, family, windows, copies, gone):
    for group in range(1, 2 * copies, 2):
        make_copy(model, family, "mlp", 0, group=group, of=group - 1, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "mlp")
    done = consolidate(module, calibration, merging(units=["mlp"], mlp_block=8, target={"sparsity": 0.4}))
    assert len(done.merged) == gone
    assert {(record.layer, record.group % 2, record.group - record.partner) for record in done.merged} == (
        {(0, 1, 1)} if gone else set()
    )


def test_groups_are_named_as_in_the_dense_model(model, family, windows):
    make_copy(model, family, "attention", 1, group=3, of=1, factor=0.5)
    module, calibration = PruningModule(model, family), calibrate(model, windows, "attention")
    module.cut(calibration, {"attention": {1: [0]}}, compensation=None)
    (record,) = consolidate(module, calibration, merging(target={"sparsity": 2 / 12})).merged
    assert (record.layer, record.group, record.partner) == (1, 3, 1)


def test_without_a_threshold_nothing_happens(model, family, windows):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    module = PruningModule(model, family)
    done = consolidate(module, calibrate(model, windows, "attention"), merging(merge=None), before=0.25, progress=0.5)
    assert (done.merged, done.before, done.progress) == ([], 0.25, 0.5)
    assert module.removed == {"attention": {}, "mlp": {}}


def test_every_merge_is_told_with_its_cosine():
    records = [
        MergeRecord(unit="attention", layer=2, group=3, partner=1, cosine=0.99912),
        MergeRecord(unit="attention", layer=2, group=0, partner=1, cosine=-0.95),
        *(MergeRecord(unit="mlp", layer=0, group=g, partner=100, cosine=1.0) for g in range(23)),
    ]
    heads, neurons = sentences(records)
    assert heads == ("merged 2 attention group(s) of layer 2: 3 into 1 (cosine 0.9991), 0 into 1 (cosine -0.9500).")
    assert neurons.startswith("merged 23 mlp group(s) of layer 0: 0 into 100")
    assert neurons.endswith("19 into 100 (cosine 1.0000), and 3 more.")


def test_cuts_of_one_model_add_up():
    assert union({"mlp": {1: [4], 0: [2]}}, {"attention": {0: [1]}, "mlp": {1: [0, 5]}}) == {
        "attention": {0: [1]},
        "mlp": {0: [2], 1: [0, 4, 5]},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": 0}, "greater than 0"),
        ({"merge": 1.01}, "less than or equal to 1"),
        ({"merge": 0.9, "units": ["layer"]}, "prune `attention` or `mlp`, or leave it out"),
    ],
)
def test_what_cannot_be_merged_is_refused(settings, message):
    with pytest.raises(SpecInvalid) as raised:
        parse_spec({"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}, **settings}})
    (error,) = raised.value.errors
    assert message in error.message
    assert error.pointer.startswith("/prune")
