import pytest
import torch

from sentinel.models.evaluation import mean_loss
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.strategies import rank_groups
from sentinel.stress.damage import damage_and_heal, most_important
from sentinel.stress_spec import Damage, Stress

SECTION = Damage(share=0.25, steps=5, points=3)


def calibration_of(model, inputs):
    return Calibration(model=model, family=inputs.family, units=("attention",), windows=inputs.calibration, seed=0)


@pytest.fixture(scope="module")
def heal(inputs, own):
    """The arm of a model."""
    stress = Stress(learning_rate=5e-4, batch_tokens=256)

    def arm(model, section=SECTION):
        tuner = FineTuner(heal=stress.training(section.steps), dense=inputs.dense)
        return damage_and_heal(
            model, inputs.family, own, calibration=inputs.calibration, section=section, tuner=tuner, seed=0
        )

    return arm


@pytest.fixture(scope="module")
def arm(inputs, heal):
    return heal(inputs.dense)


@pytest.mark.parametrize("strategy", ["taylor", "magnitude"])
def test_the_most_important_go_wherever_they_are(inputs, strategy):
    calibration = calibration_of(inputs.dense, inputs)
    removed = most_important(calibration, Damage(share=0.25, strategy=strategy))
    importance = torch.stack([ranking.importance() for ranking in rank_groups(calibration, strategy)])
    best = importance.flatten().topk(4).indices.tolist()
    assert {(layer, group) for layer, groups in removed.items() for group in groups} == {divmod(i, 4) for i in best}


def test_a_small_share_is_one_group_and_no_attention_none(inputs, pruned):
    assert sum(map(len, most_important(calibration_of(pruned, inputs), Damage(share=0.01)).values())) == 1
    empty = Calibration(model=pruned, family=inputs.family, units=(), windows=inputs.calibration, seed=0)
    assert most_important(empty, SECTION) == {}


def test_the_first_point_is_the_cut_model_s_loss(inputs, own, arm, deep_copy):
    cut = deep_copy(inputs.dense)
    apply_removal(cut, inputs.family, {"attention": arm.removed})
    assert arm.before == mean_loss(inputs.dense, own.evaluation)
    assert arm.curve[0].step == 0
    assert arm.curve[0].loss == mean_loss(cut, own.evaluation)


def test_it_hurts_more_than_to_lose_the_least_important(inputs, own, arm, deep_copy):
    cut = deep_copy(inputs.dense)
    importance = torch.stack([r.importance() for r in rank_groups(calibration_of(cut, inputs), "taylor")])
    least = [divmod(i, 4) for i in importance.flatten().topk(4, largest=False).indices.tolist()]
    removed = {layer: [group for at, group in least if at == layer] for layer, _ in least}
    apply_removal(cut, inputs.family, {"attention": removed})
    assert arm.curve[0].loss > mean_loss(cut, own.evaluation) + 0.1


def test_healing_is_measured_on_its_way(arm):
    assert [point.step for point in arm.curve] == [0, 1, 3, 5]
    losses = [point.loss for point in arm.curve]
    assert arm.before < losses[-1] < losses[0]
    assert arm.recovery == (losses[0] - losses[-1]) / (losses[0] - arm.before)


def test_more_points_than_steps_are_as_many_as_steps(inputs, heal):
    assert [point.step for point in heal(inputs.dense, Damage(steps=2, points=9)).curve] == [0, 1, 2]
