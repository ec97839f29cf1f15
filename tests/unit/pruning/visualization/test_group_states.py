"""What became of every group, replayed from the records of the cycles."""

from sentinel.pruning.visualization.group_states import State, states_at_end, states_over_cycles, touched_units
from tests.unit.pruning.visualization.records import cycle


def of_cycle(states, number):
    return {(s.layer, s.group): s.state for s in states if s.cycle == number}


def test_a_group_is_cut_gone_grown_and_kept_again():
    cycles = [cycle(1, removed={0: [1]}), cycle(2), cycle(3, grown={0: [1]}), cycle(4)]
    states = states_over_cycles(cycles, [2, 1], "attention")
    assert [of_cycle(states, n)[0, 1] for n in (1, 2, 3, 4)] == [State.CUT, State.GONE, State.GROWN, State.KEPT]
    assert {of_cycle(states, n)[1, 0] for n in (1, 2, 3, 4)} == {State.KEPT}


def test_what_did_not_pay_is_taken_out_again():
    cycles = [cycle(1, removed={0: [0]}), cycle(2, grown={0: [0]}, accepted=False), cycle(3)]
    states = states_over_cycles(cycles, [2], "attention")
    assert [of_cycle(states, n)[0, 0] for n in (1, 2, 3)] == [State.CUT, State.TRIED, State.GONE]


def test_what_went_in_exchange_is_cut_and_what_came_for_nothing_was_tried():
    cycles = [cycle(1, removed={0: [0, 1]}), cycle(2, grown={0: [0, 1]}, swapped={0: [1, 2]})]
    after = of_cycle(states_over_cycles(cycles, [3], "attention"), 2)
    assert after == {(0, 0): State.GROWN, (0, 1): State.TRIED, (0, 2): State.CUT}
    undone = [cycles[0], cycle(2, grown={0: [0]}, swapped={0: [2]}, accepted=False)]
    after = of_cycle(states_over_cycles(undone, [3], "attention"), 2)
    assert after == {(0, 0): State.TRIED, (0, 1): State.GONE, (0, 2): State.KEPT}


def test_a_fresh_group_is_there_from_its_cycle_on():
    states = states_over_cycles([cycle(1), cycle(2, grown={0: [2]}), cycle(3, removed={0: [2]})], [2], "attention")
    assert [of_cycle(states, n).get((0, 2)) for n in (1, 2, 3)] == [None, State.GROWN, State.CUT]


def test_what_is_cut_and_grown_in_the_same_cycle_is_grown():
    states = states_over_cycles([cycle(1, removed={0: [1]}, grown={0: [1]})], [2], "attention")
    assert of_cycle(states, 1)[0, 1] == State.GROWN


def test_at_the_end_a_group_is_kept_or_gone_and_more_than_dense_is_possible():
    states = states_at_end([[1, 2], []], [2, 1])
    assert of_cycle(states, 0) == {
        (0, 0): State.GONE,
        (0, 1): State.KEPT,
        (0, 2): State.KEPT,
        (1, 0): State.GONE,
    }


def test_a_layers_kept_groups_are_gone_through_once_however_many_they_are():
    class Counted(list):
        readings = 0

        def __iter__(self):
            Counted.readings += 1
            return super().__iter__()

    states = states_at_end([Counted(range(0, 100, 2))], [100])
    assert [state.state for state in states] == [State.KEPT, State.GONE] * 50
    assert Counted.readings == 1


def test_units_are_touched_by_cuts_and_by_growth_alone():
    units = ("attention", "mlp")
    assert touched_units([cycle(1), cycle(2, grown={0: [5]})], units) == ["attention"]
    assert touched_units([cycle(1, removed={0: [1]})], units) == ["attention"]
    assert touched_units([cycle(1, removed={0: []})], units) == []
