"""Every threshold is crossed by something that was measured, and not crossed by its opposite."""

import pytest

from sentinel.controller.memory import Memory
from sentinel.controller.rule import RuleController
from tests.unit.controller.real import Real

GROW = 0.1
# 24 of 32 groups, evenly; one; and of the last 8 groups of one layer all but one.
MANY = {layer: range(6) for layer in range(4)}
FEW = {1: [3]}
OF_ONE_LAYER = {1: range(7)}
AS_MANY_EVENLY = {0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [0]}


@pytest.fixture(scope="module")
def dense():
    return Real()


@pytest.fixture(scope="module")
def barely_healed(dense):
    return dense.copy().go_on(MANY, progress=0.9, steps=4)


def decided(run, *earlier):
    """What the rule decides on a run; and on what it was before each of the cycles that it has gone through."""
    controller = RuleController(Memory(), grow=GROW)
    for before in earlier:
        controller.decide(before.measurements())
    return controller.decide(run.measurements())


def test_the_first_cycle_goes_as_planned(dense):
    decision = decided(dense)
    assert (decision.action, decision.progress, decision.grow) == ("prune", 0.25, 0)


def test_few_groups_were_cheap_so_it_cuts_further(dense):
    decision = decided(dense.copy().go_on(FEW, progress=0.25), dense)
    assert (decision.action, decision.progress, decision.steps) == ("prune", 0.75, 20)
    assert "cut further" in decision.reason


def test_many_groups_barely_healed_make_it_hold(dense, barely_healed):
    decision = decided(barely_healed, dense)
    assert (decision.action, decision.progress, decision.steps) == ("hold", 0.9, 20)
    assert "still winning" in decision.reason


def test_where_holding_did_not_help_it_heals_longer(dense, barely_healed):
    decision = decided(barely_healed.copy().go_on(steps=4), dense, barely_healed)
    assert (decision.action, decision.progress, decision.steps) == ("heal", 0.9, 45)


def test_many_groups_healed_long_make_it_keep_steps_for_later(dense):
    decision = decided(dense.copy().go_on(MANY, progress=0.9, steps=30), dense)
    assert (decision.action, decision.progress, decision.steps) == ("prune", 0.9, 10)
    assert "keep steps" in decision.reason


def test_a_layer_that_lost_most_grows_and_is_protected(dense):
    decision = decided(dense.copy().go_on(OF_ONE_LAYER, progress=0.29), dense)
    assert (decision.action, decision.grow, decision.grow_layers) == ("grow", GROW, [1])
    assert decision.protected_layers == [1]
    assert decision.progress == 0.5


def test_as_many_groups_of_all_layers_make_nothing_grow(dense):
    decision = decided(dense.copy().go_on(AS_MANY_EVENLY, progress=0.29), dense)
    assert (decision.grow, decision.grow_layers) == (0, [])
    strains = [value for name, value in decision.measurements.items() if name.startswith("strain_")]
    assert max(strains) / min(strains) < 1.5
