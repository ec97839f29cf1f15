import random

import pytest

from sentinel.pruning.stability.spikes import ENOUGH, WINDOW, SpikeDetector


def scattered(level, scatter, count, seed=0):
    draw = random.Random(seed)
    return [draw.gauss(level, scatter) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_scatter_is_no_jump(seed):
    detector = SpikeDetector()
    assert not any(map(detector.is_spike, scattered(2.0, 0.1, 2000, seed)))


def test_a_falling_loss_is_no_jump_and_a_rising_one_is_at_last():
    detector = SpikeDetector()
    assert not any(detector.is_spike(4.0 * 0.97**step) for step in range(200))
    assert any(detector.is_spike(0.01 * 1.2**step) for step in range(40))


def test_what_rises_from_nothing_is_no_jump_until_it_counts():
    detector = SpikeDetector([0.0] * WINDOW)
    assert not any(detector.is_spike(1e-8 * 3**step) for step in range(12))
    assert detector.is_spike(0.1)


def test_a_jump_is_told_and_not_remembered():
    detector = SpikeDetector(scattered(2.0, 0.1, 20))
    before = detector.losses
    assert [detector.is_spike(loss) for loss in (4.0, 4.0, 2.0)] == [True, True, False]
    assert detector.losses == (*before, 2.0)


def test_nothing_is_judged_by_a_handful():
    detector = SpikeDetector()
    assert not any(map(detector.is_spike, [1.0] * (ENOUGH - 1) + [100.0]))


def test_equal_losses_leave_room_for_some_scatter():
    detector = SpikeDetector([1.0] * WINDOW)
    assert not detector.is_spike(1.4)
    assert detector.is_spike(1.6)


def test_only_the_latest_count():
    assert len(SpikeDetector(range(100)).losses) == WINDOW
