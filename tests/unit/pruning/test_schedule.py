import pytest

from sentinel.pruning.schedule import progress_at


@pytest.mark.parametrize("schedule", ["one_shot", "linear", "cubic"])
def test_every_schedule_starts_at_nothing_rises_and_ends_at_all(schedule):
    path = [progress_at(cycle, cycles=5, schedule=schedule) for cycle in range(6)]
    assert path == sorted(path)
    assert path[0] == 0
    assert path[1] > 0
    assert path[-1] == 1


def test_cubic_removes_most_at_first():
    first, second, third = (progress_at(cycle, cycles=3, schedule="cubic") for cycle in (1, 2, 3))
    assert first == pytest.approx(19 / 27)
    assert first > second - first > third - second


def test_one_shot_goes_all_the_way_in_the_first_cycle():
    assert progress_at(1, cycles=4, schedule="one_shot") == 1


def test_linear_goes_equal_parts():
    assert [progress_at(cycle, cycles=4, schedule="linear") for cycle in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]
