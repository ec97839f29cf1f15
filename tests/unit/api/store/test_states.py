"""The transition table is whole: every state leads to an end, and ends lead nowhere."""

import pytest

from api.store.states import LEASED, TRANSITIONS, State, allowed_from, is_terminal

ENDS = {State.SUCCEEDED, State.FAILED, State.CANCELLED}


def reachable(state):
    found, frontier = set(), {state}
    while frontier:
        frontier = {after for before in frontier for after in TRANSITIONS[before]} - found
        found |= frontier
    return found


def test_every_state_is_in_the_table_and_reachable():
    assert set(TRANSITIONS) == set(State)
    assert reachable(State.QUEUED) == set(State)


@pytest.mark.parametrize("state", list(State))
def test_every_state_leads_to_an_end(state):
    assert is_terminal(state) == (state in ENDS)
    assert is_terminal(state) or reachable(state) & ENDS


def test_only_a_worker_can_finish_what_a_worker_holds():
    assert State.CANCELLED not in TRANSITIONS[State.RUNNING]
    assert {before for before, after in TRANSITIONS.items() if State.SUCCEEDED in after} == LEASED


def test_allowed_states_are_named_in_order():
    assert allowed_from(State.RUNNING) == ["cancelling", "failed", "pausing", "queued", "succeeded"]
    assert allowed_from(State.FAILED) == []


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TRANSITIONS[State.FAILED] = frozenset(State)
