import pytest

from sentinel.controller.actions import Action, available, carry_out
from sentinel.controller.memory import Memory
from tests.unit.controller.measured import DENSE_ENTROPY, first, measured, survivors


def carried_out(action, now, *, grow=0.1):
    memory = Memory(dense_entropy=DENSE_ENTROPY)
    return carry_out(action, now, memory, grow=grow, grounds={"excess": 0.1}, reason="So.")


@pytest.mark.parametrize(
    ("action", "stands_out", "progress", "steps", "grow"),
    [
        ("plan", "prune", 0.5, 20, 0),
        ("further", "prune", 0.75, 20, 0),
        ("spare", "prune", 0.5, 10, 0),
        ("heal", "heal", 0.5, 30, 0),
        ("hold", "hold", 0.25, 20, 0),
        ("grow", "grow", 0.5, 20, 0.1),
    ],
)
def test_what_an_action_comes_to(action, stands_out, progress, steps, grow):
    decision = carried_out(Action(action), measured())
    assert (decision.action, decision.progress, decision.steps, decision.grow) == (stands_out, progress, steps, grow)
    assert (decision.measurements, decision.reason) == ({"excess": 0.1}, "So.")


@pytest.mark.parametrize("action", Action)
def test_whatever_is_done_the_last_cycle_ends_at_the_target(action):
    assert carried_out(action, measured(cycle=4, planned=1.0, progress=0.25)).progress == 1


@pytest.mark.parametrize("action", Action)
def test_no_cycle_goes_back_behind_what_is_done(action):
    assert carried_out(action, measured(progress=0.9, planned=0.5)).progress >= 0.9


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.SPARE])
@pytest.mark.parametrize("budget", [0, 1, 3, 5, 80])
def test_steps_are_spent_to_the_last_and_never_more(action, budget):
    left, spent = budget, []
    for cycle in range(1, 5):
        spent.append(carried_out(action, measured(cycle=cycle, steps_left=left)).steps)
        left -= spent[-1]
    assert left == 0
    assert min(spent) >= min(1, budget // 4)


def test_sparing_to_the_end_leaves_some():
    assert carried_out(Action.SPARE, measured(cycle=4, steps_left=30)).steps == 15


def test_what_can_be_done_is_what_makes_a_difference():
    everything = list(Action)
    assert available(measured(), grow=0.1) == everything
    assert available(measured(), grow=0) == [action for action in everything if action is not Action.GROW]
    assert available(first(), grow=0.1) == [Action.PLAN, Action.FURTHER, Action.SPARE, Action.HEAL]
    assert available(measured(cycle=4, planned=1.0), grow=0.1) == [Action.PLAN, Action.SPARE]
    assert available(measured(steps_left=0), grow=0.1) == [Action.PLAN, Action.FURTHER, Action.GROW]
    assert Action.FURTHER not in available(measured(planned=1.0), grow=0)


def test_it_grows_where_layers_are_overloaded_and_keeps_the_cut_from_them():
    strained = survivors(1, [0.5, 0.5])
    decision = carried_out(Action.GROW, measured(**strained, progress=0.4))
    assert (decision.grow_layers, decision.protected_layers) == ([1], [1])
    cramped = carried_out(Action.GROW, measured(**strained, progress=0.1))
    assert (cramped.grow_layers, cramped.protected_layers) == ([1], []), "the cut needs every layer"
    anywhere = carried_out(Action.GROW, measured())
    assert (anywhere.grow_layers, anywhere.protected_layers) == ([], [])
    assert carried_out(Action.PLAN, measured(**strained, progress=0.4)).protected_layers == []
