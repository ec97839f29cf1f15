import pytest

from sentinel.heal_spec import Heal
from sentinel.models.evaluation import mean_loss
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.stress.alternation import alternate


@pytest.fixture(scope="module")
def tuner(inputs):
    heal = Heal(loss="cross_entropy", steps=6, learning_rate=1e-3, schedule="constant", batch_tokens=128)
    return FineTuner(heal=heal, dense=inputs.dense)


@pytest.fixture(scope="module")
def arm(pruned, own, other, tuner):
    return alternate(pruned, own, other, tuner=tuner, rounds=2, seed=3)


def test_both_come_in_turn(arm):
    assert [(leg.round, leg.domain) for leg in arm.legs] == [(1, "programs"), (1, "data"), (2, "programs"), (2, "data")]


def test_what_is_learnt_gets_better_and_the_other_is_forgotten(arm, pruned, own, other):
    start, first, back, *_ = [arm.start, *(leg.losses for leg in arm.legs)]
    assert start == {
        "data": mean_loss(pruned, own.evaluation),
        "programs": mean_loss(pruned, other.evaluation),
    }
    assert first["programs"] < start["programs"] - 1
    assert first["data"] > start["data"]
    assert back["data"] < first["data"]


def test_forgetting_and_recovery_are_told_per_round(arm):
    losses = [arm.start["data"], *(leg.losses["data"] for leg in arm.legs)]
    assert arm.forgetting == [losses[1] - losses[0], losses[3] - losses[2]]
    assert arm.recovery[0] == (losses[1] - losses[2]) / (losses[1] - losses[0])
    assert len(arm.recovery) == 2
