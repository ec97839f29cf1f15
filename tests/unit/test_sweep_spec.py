"""Sweeps as documents: what they multiply into, and where in them a mistake lies."""

import pytest

from sentinel.errors import FieldError, SpecInvalid
from sentinel.spec import parse_spec
from sentinel.sweep_spec import EXAMPLE, SweepInvalid, check_points, parse_sweep

SPEC = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}


def mistakes(document, **options):
    with pytest.raises(SweepInvalid) as caught:
        parse_sweep(document, **options)
    assert f" {len(caught.value.errors)} mistake(s)" in caught.value.message
    return [(error.pointer, error.code) for error in caught.value.errors]


def test_values_multiply_and_the_last_field_varies_fastest():
    sweep, points = parse_sweep(EXAMPLE)
    assert (len(points), sweep.max_parallel, sweep.budget.slot_seconds) == (12, 4, 36000)
    assert [point.values["seed"] for point in points[:4]] == [0, 1, 2, 0]
    assert points[4].values == {"prune.strategy": "obs", "prune.target.sparsity": 0.5, "seed": 1}
    spec = points[-1].spec
    assert (spec.prune.strategy, spec.prune.target.sparsity, spec.seed, spec.heal) == ("taylor", 0.5, 2, None)
    assert {point.spec.name for point in points} == {"strategies"}


def test_a_value_may_be_a_whole_section_and_the_name_a_field_like_others():
    grid = {
        "model": ["builtin/gpt2", {"source": "builtin", "id": "llama"}],
        "heal": [None, {"steps": 3}],
        "name": ["a"],
    }
    _, points = parse_sweep({"name": "b", "spec": SPEC | {"name": "c"}, "grid": grid})
    assert [(p.spec.model.id, p.spec.heal and p.spec.heal.steps, p.spec.name) for p in points] == [
        ("gpt2", None, "a"),
        ("gpt2", 3, "a"),
        ("llama", None, "a"),
        ("llama", 3, "a"),
    ]


def test_points_share_nothing_that_one_of_them_changes():
    document = {"spec": SPEC, "grid": {"model.dtype": ["float32", "bfloat16"], "prune.cycles": [1, 2]}}
    _, points = parse_sweep(document)
    assert [(p.spec.model.dtype, p.spec.prune.cycles) for p in points] == [
        ("float32", 1),
        ("float32", 2),
        ("bfloat16", 1),
        ("bfloat16", 2),
    ]
    assert SPEC == {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}


def test_all_mistakes_are_told_at_once_each_where_it_was_made():
    document = {
        "spec": {"model": "a b", "colour": "red"},
        "grid": {
            "prune.target": [{"sparsity": 0.5}, {"sparsity": 2}],
            "prune.strategy": ["obs", "psychic", "magic"],
            "a/b.c": [1],
            "seed": [0, 1],
        },
        "max_parallel": 0,
        "budget": {"slot_seconds": -1},
        "tint": "blue",
    }
    assert sorted(mistakes(document)) == [
        ("/budget/slot_seconds", "greater_than"),
        ("/grid/a~1b.c/0", "extra_forbidden"),
        ("/grid/prune.strategy/1", "literal_error"),
        ("/grid/prune.strategy/2", "literal_error"),
        ("/grid/prune.target/1/sparsity", "less_than"),
        ("/max_parallel", "greater_than_equal"),
        ("/spec/colour", "extra_forbidden"),
        ("/spec/model", "string_pattern_mismatch"),
        ("/tint", "extra_forbidden"),
    ]


def test_a_mistake_of_what_all_points_share_lies_in_the_spec():
    assert mistakes({"spec": {"prune": {"target": {}}}, "grid": {"seed": [0, 1], "prune.cycles": [1, 2]}}) == [
        ("/spec/model", "missing"),
        ("/spec/prune/target", "value_error"),
    ]


def test_a_value_that_fits_no_other_is_named():
    """The mistake is one of the whole section `prune`; it comes with one value, whatever the others are."""
    grid = {"seed": [0, 1], "prune.allocation": ["global", "uniform", "cost"]}
    spec = {"model": "builtin/gpt2", "prune": {"units": ["layer"], "target": {"sparsity": 0.5}}}
    assert mistakes({"spec": spec, "grid": grid}) == [("/grid/prune.allocation/1", "value_error")]


def test_values_that_do_not_fit_together_are_named():
    grid = {"prune.units": [["attention"], ["mlp"]], "prune.strategy": ["obs", "entropy"], "seed": [0, 1]}
    with pytest.raises(SweepInvalid) as caught:
        parse_sweep({"spec": SPEC, "grid": grid})
    (error,) = caught.value.errors
    assert error.pointer == "/spec/prune"
    assert error.message.endswith('With prune.units = ["mlp"], prune.strategy = "entropy", seed = 0.')


@pytest.mark.parametrize(
    ("grid", "pointer"),
    [
        ({"seed": [0, 1, 0]}, "/grid/seed/2"),
        ({"seed": [0, 1], "model": ["builtin/gpt2", {"source": "builtin"}]}, "/grid/model/1"),
    ],
)
def test_a_point_that_repeats_another_is_refused(grid, pointer):
    assert mistakes({"spec": SPEC, "grid": grid}) == [(pointer, "point_repeated")]


def test_points_that_are_one_by_several_values_are_named():
    def check(document):
        return parse_spec(SPEC | {"seed": (document["seed"] + document["prune"]["cycles"]) % 3})

    grid = {"seed": [0, 1], "prune.cycles": [1, 2]}
    with pytest.raises(SweepInvalid) as caught:
        parse_sweep({"spec": SPEC, "grid": grid}, check=check)
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == ("/grid", "point_repeated")
    assert error.message.endswith("With seed = 1, prune.cycles = 1.")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"seed": list(range(51)), "prune.cycles": list(range(1, 11))}, "has 510 points; a sweep can have 500"),
        ({"prune.target": [{"sparsity": 0.5}], "prune.target.flops": [9]}, "`prune.target.flops` is a part of"),
        ({}, "at least 1 item"),
        ({"seed": []}, "at least 1 item"),
        ({"seed": 3}, "valid list"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_it_multiplies(grid, message):
    def never(document):
        raise AssertionError

    with pytest.raises(SweepInvalid) as caught:
        parse_sweep({"spec": SPEC, "grid": grid}, check=never)
    (error,) = caught.value.errors
    assert error.pointer.startswith("/grid")
    assert message in error.message


@pytest.mark.parametrize("document", [None, [], "spec", {}, {"spec": [], "grid": {"seed": [0]}}, {"spec": SPEC}])
def test_what_is_no_sweep_is_refused(document):
    assert mistakes(document)


@pytest.mark.parametrize("limit", [0, 2**31])
def test_a_limit_is_a_number_that_a_database_holds(limit):
    ((pointer, _),) = mistakes({"spec": SPEC, "grid": {"seed": [0]}, "max_parallel": limit})
    assert pointer == "/max_parallel"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1: 2}])
def test_values_are_json(value):
    assert mistakes({"spec": SPEC, "grid": {"seed": [value]}})


def test_what_else_checks_a_spec_is_asked_of_every_point():
    def check(document):
        if document["device"] == "mps":
            raise SpecInvalid("no", errors=[FieldError(pointer="/device", code="unfit", message="Not here.")])
        return parse_spec(document)

    grid = {"seed": [0, 1], "device": ["cpu", "mps"]}
    assert mistakes({"spec": SPEC, "grid": grid}, check=check) == [("/grid/device/1", "unfit")]


def test_parsed_points_can_be_asked_once_more():
    def mistakes_of(spec):
        unfit = FieldError(pointer="/model/id", code="unfit", message=f"Not {spec.model.id}.")
        return [unfit] if spec.model.id == "gpt2" else []

    models = [{"source": "builtin", "id": name} for name in ("llama", "gpt2")]
    sweep, points = parse_sweep({"spec": SPEC, "grid": {"seed": [0, 1], "model": models}})
    with pytest.raises(SweepInvalid, match=r"1 mistake\(s\)") as caught:
        check_points(sweep, points, mistakes_of)
    assert [(error.pointer, error.code) for error in caught.value.errors] == [("/grid/model/1/id", "unfit")]
    check_points(*parse_sweep({"spec": SPEC, "grid": {"model": models[:1]}}), mistakes_of)
