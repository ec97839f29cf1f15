import pytest

from sentinel.pruning.schedule import sparsity_at


@pytest.mark.parametrize("schedule", ["one_shot", "linear", "cubic"])
def test_every_schedule_rises_and_ends_at_the_target(schedule):
    path = [sparsity_at(cycle, cycles=5, target=0.4, schedule=schedule) for cycle in range(1, 6)]
    assert path == sorted(path)
    assert path[-1] == pytest.approx(0.4)
    assert path[0] > 0


def test_cubic_removes_most_at_first():
    first, second, third = (sparsity_at(cycle, cycles=3, target=0.27, schedule="cubic") for cycle in (1, 2, 3))
    assert first == pytest.approx(0.19)
    assert first > second - first > third - second


def test_one_shot_removes_everything_in_the_first_cycle():
    assert sparsity_at(1, cycles=4, target=0.5, schedule="one_shot") == 0.5


def test_linear_removes_equal_shares():
    assert [sparsity_at(cycle, cycles=4, target=0.5, schedule="linear") for cycle in (1, 2, 3, 4)] == [
        0.125,
        0.25,
        0.375,
        0.5,
    ]
