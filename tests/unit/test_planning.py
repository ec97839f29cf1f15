"""What cycles are to do, by the schedule and by a decision."""

from pathlib import Path

import pytest

from sentinel.planning import Planner
from sentinel.result import CostRecord, CycleRecord, DecisionRecord, GrowthRecord
from sentinel.spec import parse_spec
from tests.unit.controller.measured import first, measured, survivors


def spec(*, cycles=4, **grow):
    return parse_spec(
        {
            "model": "builtin/gpt2",
            "prune": {"target": {"sparsity": 0.5}, "cycles": cycles, "schedule": "linear", "protected_layers": [3]},
            "heal": {"epochs": 2},
            "grow": grow,
        }
    )


def planner(*, cycles=4, **grow):
    return Planner(spec(cycles=cycles, **grow), steps=10, model_folder=Path(), state=None)


def growth(*, accepted):
    return GrowthRecord(
        strategy="random",
        grown={},
        removed={},
        gains={},
        accepted=accepted,
        loss_before=1,
        loss_grown=1,
        loss_after=1,
        loss_without=1,
        reason="",
    )


def record(number, **changes):
    cost = CostRecord(kind="sparsity", goal=1, predicted=1, measured=1)
    return CycleRecord(
        cycle=number,
        sparsity={},
        cost=cost,
        removed={},
        evaluations=0,
        loss_before_healing=1,
        loss=1,
        compensation=[],
        **changes,
    )


def decision(**changes):
    settings = {"action": "grow", "progress": 0.4, "grow": 0.2, "steps": 7, "protected_layers": [1], "grow_layers": [1]}
    return DecisionRecord(measurements={}, reason="", **{**settings, **changes})


def test_the_schedule_exchanges_behind_every_cycle_but_the_last():
    plans = [planner().scheduled([record(n) for n in range(1, done + 1)]) for done in range(4)]
    assert [(plan.before, plan.progress) for plan in plans] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert [plan.grow is None for plan in plans] == [False, False, False, True]
    assert all(plan.heal.epochs == 2 for plan in plans)
    assert [plan.heal.schedule for plan in plans] == [*3 * ["constant"], "cosine"]


@pytest.mark.parametrize(
    ("outcomes", "goes_on"),
    [
        ([], True),
        ([False], True),
        ([False, False], False),
        ([True, False], True),
        ([False, None], True),
        ([False, None, False], False),
    ],
)
def test_after_so_many_exchanges_in_a_row_that_were_undone_no_more_are_tried(outcomes, goes_on):
    """None: nothing could grow in that cycle, which says nothing of exchanges."""
    growths = [None if accepted is None else growth(accepted=accepted) for accepted in outcomes]
    records = [record(number, growth=found) for number, found in enumerate(growths, start=1)]
    assert (planner(cycles=5, patience=2).scheduled(records).grow is not None) is goes_on
    assert planner(cycles=5).scheduled(records).grow is not None


@pytest.mark.parametrize(("patience", "grows"), [(None, True), (3, True), (2, False)])
def test_a_controller_is_told_that_no_more_exchanges_are_tried(patience, grows):
    document = spec(cycles=5, patience=patience).model_dump(mode="json") | {"controller": {}}
    made = Planner(parse_spec(document), steps=20, model_folder=Path(), state=None)
    made.plan([], lambda *_: first(cycles=5))
    for cycle in (2, 3):
        made.plan([record(1, decision=decision(progress=0.25))], lambda *_, cycle=cycle: strained(cycle))
    done = [record(n, decision=decision(progress=0.3), growth=growth(accepted=False)) for n in (1, 2)]
    plan = made.plan(done, lambda *_: strained(4))
    assert (plan.decision.action == "grow") is grows
    assert (plan.grow is not None) is grows


def strained(cycle):
    return measured(cycle=cycle, cycles=5, **survivors(1, [0.5, 0.5]))


def test_a_decision_says_how_far_how_long_and_where():
    plan = planner().decided([record(1, decision=decision(progress=0.3))], decision())
    assert (plan.before, plan.progress, plan.grow_layers) == (0.3, 0.4, [1])
    assert plan.heal.schedule == "constant"
    assert (plan.heal.steps, plan.heal.epochs) == (7, None)
    assert plan.grow.fraction == 0.2
    assert plan.prune.protected_layers == [1, 3]


def test_a_decision_may_be_against_healing_and_growing():
    plan = planner().decided([], decision(steps=0, grow=0))
    assert plan.heal is plan.grow is None


def test_a_cycle_goes_on_as_it_was_planned():
    made = planner()
    assert made.resumed([], record(1)) == made.scheduled([])
    assert made.resumed([], record(1, decision=decision())) == made.decided([], decision())
