import pytest

from sentinel.controller.overload import leave_a_choice, overloaded, strains
from tests.unit.controller.measured import DENSE_ENTROPY, EVEN, measured, survivors


def strain_of(layer, now):
    return strains(now, DENSE_ENTROPY)[layer]


def test_a_dense_layer_strains_once_whatever_its_size_and_energy():
    now = measured(utilisation={0: dict.fromkeys(range(12), 0.02), 1: {0: 0.7}}, entropy={0: {}, 1: {}})
    assert strains(now, {}) == pytest.approx({0: 1, 1: 1})


def test_strain_counts_dense_groups_for_each_that_really_works():
    assert strain_of(1, measured(**survivors(1, [0.5, 0.5]))) == pytest.approx(2)
    assert strain_of(1, measured(**survivors(1, [1.0, 0.0]))) == pytest.approx(4)
    assert strain_of(1, measured(**survivors(1, [0.0, 0.0]))) == pytest.approx(2), "nothing is put out, evenly"


def test_survivors_that_attend_to_less_than_in_the_dense_model_strain_more():
    assert strain_of(1, measured(**survivors(1, [0.5, 0.5], entropy=1.6))) == pytest.approx(2.5)


def test_groups_that_the_dense_model_did_not_have_are_compared_with_nothing():
    now = measured(utilisation={0: {0: 0.5, 4: 0.5}}, entropy={0: {0: 1.0, 4: 0.1}}, removed={0: 3})
    assert strain_of(0, now) == pytest.approx(4 * 0.5 * 2)


def test_a_layer_whose_lost_groups_were_replaced_by_fresh_ones_does_not_strain():
    """Two of its four groups were lost, and as many came that the dense model did not have."""
    groups = (0, 1, 4, 5)
    now = measured(
        utilisation={**EVEN, 1: dict.fromkeys(groups, 0.25)},
        entropy={**DENSE_ENTROPY, 1: dict.fromkeys(groups, 2.0)},
        removed={1: 2},
    )
    assert strain_of(1, now) == pytest.approx(1)
    assert overloaded(now, strains(now, DENSE_ENTROPY)) == []


def test_overloaded_is_half_as_much_again_as_the_median_layer_and_must_have_lost_something():
    below, above = (
        measured(**survivors(2, [0.34, 0.33, 0.33])),
        measured(**survivors(2, [0.4, 0.35, 0.25], entropy=1.8)),
    )
    assert overloaded(below, strains(below, DENSE_ENTROPY)) == []
    assert overloaded(above, strains(above, DENSE_ENTROPY)) == [2]
    lopsided = measured(utilisation={**EVEN, 2: {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}})
    assert strains(lopsided, DENSE_ENTROPY)[2] == pytest.approx(4)
    assert overloaded(lopsided, strains(lopsided, DENSE_ENTROPY)) == []


def test_a_layer_that_was_emptied_is_left_out():
    now = measured(**survivors(1, []))
    assert set(strains(now, DENSE_ENTROPY)) == {0, 2, 3}
    assert overloaded(measured(utilisation={}), {}) == []


def test_protection_needs_twice_the_groups_that_go():
    # Two of 16 groups were an eighth of the way: four more go until 3/8, of at most 9 outside of layer 1.
    now = measured(**survivors(1, [0.5, 0.5]), progress=1 / 8)
    assert leave_a_choice(now, protected=[1], progress=3 / 8, grow=0.0)
    assert not leave_a_choice(now, protected=[1], progress=3 / 8, grow=0.1)
    assert not leave_a_choice(now, protected=[0, 1], progress=3 / 8, grow=0.0)
    for spec in ({"minimum_per_layer": 3}, {"protected_layers": [0, 2]}):
        bound = measured(**survivors(1, [0.5, 0.5]), progress=1 / 8, **spec)
        assert not leave_a_choice(bound, protected=[1], progress=3 / 8, grow=0.0), "the spec leaves less to choose from"
    assert not leave_a_choice(measured(progress=0.0), protected=[1], progress=0.25, grow=0.0)
