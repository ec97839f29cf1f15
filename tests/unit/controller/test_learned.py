"""The learned controller in the toy run: that it learns, forgets nothing that is saved, and refuses what is damaged."""

import json

import numpy as np
import pytest

from sentinel.controller.actions import Action, carry_out
from sentinel.controller.experience import Experience
from sentinel.controller.learned import LearnedController, LearnedState
from sentinel.controller.measurements import Outcome
from sentinel.controller.memory import Memory
from sentinel.controller.starting import resume, start
from sentinel.controller_spec import Controller
from sentinel.errors import CheckpointInvalid, ControllerStateInvalid
from tests.unit.controller.measured import first, measured, survivors
from tests.unit.controller.toy import Toy

LEARNED = Controller(kind="learned")
RUNS, SEEDS = 25, 6
EASY = Toy()
# Large cuts cost far more than the same in small ones.
BRITTLE = Toy(coarse=30.0)


class Plan:
    """The schedule as it is."""

    def decide(self, now):
        return carry_out(Action.PLAN, now, Memory(), grow=0, grounds={}, reason="")

    def learn(self, outcome):
        pass


def controller(*, seed=0, explore=True, experience=None):
    state = LearnedState(experience=experience or Experience.none())
    return LearnedController(state, seed=seed, grow=0.0, explore=explore)


def learning_curve(toy, seed):
    """The excess at the end of each run of one controller, and what it has become."""
    learner = controller(seed=seed)
    return [toy.run(learner, seed=1000 * seed + run)[0] for run in range(RUNS)], learner


@pytest.mark.parametrize("toy", [EASY, BRITTLE], ids=["easy", "brittle"])
def test_it_gets_better_with_every_few_runs_and_better_than_the_plan(toy):
    curves = np.array([learning_curve(toy, seed)[0] for seed in range(SEEDS)])
    by_five = curves.mean(0).reshape(5, 5).mean(1)
    plan = np.mean([toy.run(Plan(), seed=seed)[0] for seed in range(SEEDS)])
    assert by_five[0] > by_five[1] > by_five[2]
    assert by_five[4] < 0.9 * plan
    assert (curves[:, -5:].mean(1) < curves[:, :5].mean(1)).all(), "with every seed"


def test_the_first_run_of_all_favours_the_plan_and_tries_other_things():
    first_actions = [controller(seed=seed).decide(first()).reason.split("`")[1] for seed in range(200)]
    counts = {action: first_actions.count(action) for action in set(first_actions)}
    assert set(counts) == {"plan", "further", "spare", "heal"}
    assert max(counts, key=counts.get) == "plan"
    assert counts["plan"] > 1.5 * max(count for action, count in counts.items() if action != "plan")


def test_without_exploring_it_takes_what_is_best_known_and_repeats_itself():
    ignorant = controller(explore=False)
    assert [d.reason.split("`")[1] for d in EASY.run(ignorant, seed=1)[1]] == ["plan"] * 4
    _, taught = learning_curve(EASY, 0)
    knows = taught._state.experience
    paths = [
        [d.progress for d in EASY.run(controller(seed=seed, explore=False, experience=knows), seed=3)[1]]
        for seed in range(3)
    ]
    assert paths[0] == paths[1] == paths[2]


def test_the_same_seed_repeats_and_another_does_not():
    curves = [learning_curve(EASY, seed)[0] for seed in (4, 4, 5)]
    assert curves[0] == curves[1] != curves[2]


def through_json(section):
    """After every cycle another process goes on from what this one wrote down."""
    return lambda used: resume(section, json.loads(json.dumps(used.state())), seed=0, grow=0.0)


def test_killed_after_every_cycle_it_ends_bit_for_bit_as_if_it_had_not_been():
    unbroken, broken = controller(), controller()
    for run in range(4):
        last = []

        def remember(learner, last=last):
            last.append(through_json(LEARNED)(learner))
            return last[-1]

        assert BRITTLE.run(broken, seed=run, after_cycle=remember) == BRITTLE.run(unbroken, seed=run)
        broken = last[-1]
    assert broken.state() == unbroken.state()


def test_a_later_job_goes_on_from_the_checkpoint_of_an_earlier_one(tmp_path):
    unbroken = controller()
    used = start(LEARNED, seed=0, grow=0.0, model_folder=tmp_path)
    for run in range(3):
        assert EASY.run(used, seed=run) == EASY.run(unbroken, seed=run)
        used.save(tmp_path)
        used = start(LEARNED.model_copy(update={"state": "checkpoint"}), seed=0, grow=0.0, model_folder=tmp_path)
    assert used.state() == unbroken.state()
    fresh = start(LEARNED, seed=0, grow=0.0, model_folder=tmp_path)
    assert fresh.state()["experience"]["posterior"]["samples"] == 0, "unless it is to go on, it knows nothing"


def test_asked_again_from_the_same_state_it_answers_the_same():
    used = controller()
    again = resume(LEARNED, used.state(), seed=0, grow=0.0)
    assert used.decide(first()) == again.decide(first())


def test_a_run_that_stopped_early_teaches_nothing():
    used = controller()
    used.decide(first())
    used.learn(Outcome(cycle=1, loss=2.2, steps=20))
    assert used.state()["experience"]["posterior"]["samples"] == 0
    used.decide(first())
    assert len(used.state()["run"]["steps"]) == 1


def test_the_reward_is_what_the_loss_fell_by_less_the_price_of_the_steps():
    used = controller()
    for cycle, loss in enumerate((2.0, 2.4, 2.3, 2.6), start=1):
        used.decide(first() if cycle == 1 else measured(cycle=cycle, loss=loss))
        if cycle < 4:
            used.learn(Outcome(cycle=cycle, loss=0.0, steps=10))
    run = used._state.run
    rewards = run.rewards(2.5)
    # 10 of 80 steps cost 0.00125; those of the cycle at hand are not known yet.
    expected = [(2.0 - 2.5) / 2 - 0.00375, (2.4 - 2.5) / 2 - 0.0025, (2.3 - 2.5) / 2 - 0.00125, (2.6 - 2.5) / 2]
    assert rewards == pytest.approx(expected)


def test_it_grows_only_where_the_spec_lets_it():
    grows = LearnedController(LearnedState(experience=Experience.none()), seed=0, grow=0.1, explore=True)
    grows.decide(first())
    decision = grows.decide(measured(**survivors(1, [0.5, 0.5])))
    assert "expected_grow" in decision.measurements
    cannot = controller()
    cannot.decide(first())
    assert "expected_grow" not in cannot.decide(measured()).measurements


def test_an_outcome_of_another_cycle_is_refused():
    with pytest.raises(ValueError, match="Cycle 1 was not decided here"):
        controller().learn(Outcome(cycle=1, loss=2.0, steps=1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-9], "the file: Invalid JSON"),
        (lambda text: text.replace('"version":1', '"version":2'), "version 1.*version: Input should be 1"),
        (lambda text: text.replace('"samples":0', '"samples":0.5'), "posterior.samples"),
        (lambda text: text.replace('"decisions"', '"decision"'), "decisions: Field required"),
        (
            lambda _: '{"version":1,"decisions":0,"posterior":{"precision":[[1]],"moment":[0],"squares":1}}',
            "over 1 features",
        ),
        (lambda text: text + " " * 2**20, "more than 1,048,576 bytes"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place_of_the_damage(tmp_path, damage, message):
    controller().save(tmp_path)
    file = tmp_path / "controller.json"
    file.write_text(damage(file.read_text()))
    section = Controller(kind="learned", state="checkpoint")
    with pytest.raises(ControllerStateInvalid, match=message):
        start(section, seed=0, grow=0.0, model_folder=tmp_path)


def test_a_model_without_a_controller_is_refused(tmp_path):
    section = Controller(kind="learned", state="checkpoint")
    with pytest.raises(ControllerStateInvalid, match=r"no controller\.json"):
        start(section, seed=0, grow=0.0, model_folder=tmp_path)


@pytest.mark.parametrize("section", [LEARNED, Controller()], ids=["learned", "rule"])
def test_a_run_s_damaged_state_is_refused(section):
    with pytest.raises(CheckpointInvalid, match=f"state of the {section.kind} controller is damaged"):
        resume(section, {"cycle": "two"}, seed=0, grow=0.0)
