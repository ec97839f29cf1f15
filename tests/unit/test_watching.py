"""How healing went towards its end."""

import pytest

from sentinel.utils.series import Point
from sentinel.watching import healing_slope


def points(*losses):
    return [Point(step, loss, 1) for step, loss in enumerate(losses)]


def test_the_slope_is_what_a_step_of_the_last_quarter_won():
    """From 3 to 2 on the average, over quarters of two steps."""
    assert healing_slope(points(9, 9, 9, 9, 3.5, 2.5, 2.25, 1.75), steps=8) == pytest.approx(0.5)


@pytest.mark.parametrize(("losses", "steps"), [((3, 2, 1), 3), ((3, 2), 8)])
def test_too_few_steps_have_no_slope(losses, steps):
    assert healing_slope(points(*losses), steps=steps) is None
