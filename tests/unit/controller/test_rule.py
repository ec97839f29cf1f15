"""Where the thresholds are, by numbers that lie just on either side."""

import json

import pytest

from sentinel.controller.memory import Memory
from sentinel.controller.rule import RuleController
from sentinel.controller.starting import resume, start
from sentinel.controller_spec import Controller
from tests.unit.controller.measured import first, measured, survivors


def decided(now, *, grow=0.1, before=None):
    controller = RuleController(Memory(), grow=grow)
    controller.decide(before or first())
    return controller.decide(now)


# The loss was 2 before the cut: 3 is half of the dense loss more, 4 twice as much damage.
HURT = {"loss": 3.0, "cut_loss": 4.0, "healing_slope": 0.0075}


@pytest.mark.parametrize(
    ("changes", "action", "says"),
    [
        (HURT, "hold", "still winning"),
        ({**HURT, "healing_slope": 0.0074}, "heal", "heal longer"),
        ({**HURT, "cycles": 3, "steps_left": 40}, "heal", "heal longer"),
        ({**HURT, "cut_loss": 4.01}, "prune", "keep steps"),
        ({**HURT, "loss": 2.99, "cut_loss": 3.9}, "prune", "keep steps"),
        ({"loss": 2.099, "cut_loss": 2.15}, "prune", "cut further"),
        ({"loss": 2.101, "cut_loss": 2.15}, "prune", "keep steps"),
        ({"loss": 2.5, "cut_loss": 4.0}, "prune", "cut further"),
        ({"loss": 2.51, "cut_loss": 4.0}, "prune", "keep steps"),
        ({"loss": 1.9, "cut_loss": 1.95}, "prune", "cut further"),
        (survivors(1, [0.5, 0.5]), "grow", "Layer(s) 1 strain"),
        ({**survivors(1, [0.5, 0.5]), **HURT}, "hold", "still winning"),
    ],
)
def test_either_side_of_every_threshold(changes, action, says):
    decision = decided(measured(**changes))
    assert decision.action == action
    assert says in decision.reason


def test_it_holds_once_and_judges_by_the_last_real_cut():
    controller = RuleController(Memory(), grow=0)
    controller.decide(first())
    assert controller.decide(measured(**HURT)).action == "hold"
    again = measured(**{**HURT, "cut_loss": 3.0}, cycle=3, planned=0.75, steps_left=40)
    decision = controller.decide(again)
    assert decision.action == "heal"
    assert (decision.measurements["debt"], decision.measurements["unhealed"]) == (0.5, 0.5)


def test_in_the_last_cycle_it_goes_to_the_target_with_all_that_is_left():
    controller = RuleController(Memory(), grow=0)
    controller.decide(first())
    for cycle in (2, 3, 4):
        decision = controller.decide(measured(cycle=cycle, loss=2.3, cut_loss=2.4, steps_left=33))
    assert (decision.action, decision.progress, decision.steps) == ("prune", 1, 33)


def test_nothing_grows_where_the_spec_grows_nothing():
    assert decided(measured(**survivors(1, [0.5, 0.5])), grow=0).grow == 0


def test_what_happened_before_the_run_is_forgotten():
    used = RuleController(Memory(), grow=0.1)
    used.decide(first(loss=1.0))
    used.decide(measured(**HURT))
    fresh = RuleController(Memory(), grow=0.1)
    assert used.decide(first()) == fresh.decide(first())
    assert used.state() == fresh.state()


def test_a_cycle_that_does_not_follow_is_refused():
    with pytest.raises(ValueError, match="Cycle 2 cannot be decided: the last that was decided is 0"):
        RuleController(Memory(), grow=0).decide(measured())


def test_resumed_it_goes_on_as_if_it_had_not_stopped(tmp_path):
    section = Controller()
    controller = start(section, seed=0, grow=0.1, model_folder=tmp_path)
    controller.decide(first())
    written = json.loads(json.dumps(controller.state()))
    resumed = resume(section, written, seed=0, grow=0.1)
    now = measured(**survivors(1, [0.6, 0.4], entropy=1.5), loss=2.5)
    decision = controller.decide(now)
    assert resumed.decide(now) == decision
    assert decision.measurements["strain_1"] == pytest.approx(4 * 0.52 * 2 / 1.5)
    assert resumed.state() == controller.state()
    controller.save(tmp_path)
    assert not list(tmp_path.iterdir()), "a later job needs nothing of it"
