import math

import pytest

from sentinel.pruning.stability.judge import MAX_LEFT_OUT, MAX_PUT_BACK, Judge, Verdict
from sentinel.pruning.stability.levels import Stability

L, O, B, G = Verdict.LEARN, Verdict.LEAVE_OUT, Verdict.PUT_BACK, Verdict.GIVE_UP
FINE, BAD, JUMP = (1.0, 1.0), (math.nan, 1.0), (9.0, 1.0)


def verdicts(level, *steps):
    judge = Judge(Stability(level), losses=[1.0] * 20)
    return [judge.judge(*step)[0] for step in steps]


@pytest.mark.parametrize("broken", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite(broken):
    assert verdicts(0, FINE, broken) == [L, G]
    assert verdicts(1, FINE, broken, FINE) == [L, O, L]
    assert verdicts(2, broken, FINE, broken, broken, FINE) == [O, L, O, B, L]


def test_a_jump_counts_from_level_2_on():
    assert verdicts(0, JUMP) == verdicts(1, JUMP) == [L]
    assert verdicts(2, JUMP, FINE, JUMP, JUMP, FINE) == [O, L, O, B, L]
    assert verdicts(3, JUMP, BAD, FINE) == [O, B, L]


def test_there_is_an_end_to_it():
    assert verdicts(1, *[BAD] * (MAX_LEFT_OUT + 1)) == [O] * MAX_LEFT_OUT + [G]
    assert verdicts(2, *[JUMP] * (2 * MAX_PUT_BACK + 2)) == [O, B] * MAX_PUT_BACK + [O, G]


def test_it_goes_on_where_another_ended():
    judge = Judge(Stability(2), losses=[1.0] * 20, left_out=3, put_back=MAX_PUT_BACK)
    assert judge.judge(*JUMP) == (O, "the loss jumped to 9")
    assert judge.judge(*JUMP)[0] is G
    assert (judge.left_out, judge.put_back) == (5, MAX_PUT_BACK + 1)
