"""States over the cycles of a run, from measurements made by hand."""

from sentinel.states import MOST_TOLD, changes_in, history_of, states_of

COUNTS = [4, 2, 0]


def measured(*layers):
    """Signals of layer → group → (utilisation, importance, gradient norm)."""
    names = ("utilisation", "importance", "gradient_norm")
    found = {name: {l: {g: v[i] for g, v in of.items()} for l, of in enumerate(layers)} for i, name in enumerate(names)}
    return {**found, "entropy": {l: dict.fromkeys(of, 1.0) for l, of in enumerate(layers)}}


CALM = dict.fromkeys(range(4), (0.25, 1.0, 1.0))
PAIR = {0: (0.5, 1.0, 1.0), 1: (0.5, 1.0, 1.0)}
STRAINED = {0: (0.7, 1.0, 1.0), 1: (0.1, 0.1, 9.0), 2: (0.1, 1.0, 1.0), 3: (0.1, 1.0, 1.0)}


def test_states_are_those_of_the_dense_model_s_groups():
    history = history_of({1: measured(CALM, PAIR), 2: measured(STRAINED, {1: (1.0, 1.0, 1.0)})}, COUNTS)
    assert states_of(history) == {0: ["overloaded", "misaligned", "active", "active"], 1: ["withdrawn", "active"]}


def test_changes_are_told_with_their_reason():
    history = history_of({1: measured(CALM, PAIR), 2: measured(STRAINED, {1: (1.0, 1.0, 1.0)})}, COUNTS)
    assert changes_in(history, 1) == ""
    assert changes_in(history, 2) == (
        "States of attention groups. Layer 0, group 0: active → overloaded. It puts out 70% of the energy of 4 groups. "
        "Layer 0, group 1: active → misaligned. Its gradient is 3 of the layer's mean, above 2, its importance 0.129 "
        "of it, below 0.5. Withdrawn, as they are not in the model any more: 1."
    )


def test_recovery_takes_two_cycles_and_what_grows_again_starts_anew():
    cycles = [measured(STRAINED, PAIR), measured(CALM, {0: (1.0, 1.0, 1.0)}), measured(CALM, PAIR)]
    two, three = (history_of(dict(enumerate(cycles[:n], start=1)), COUNTS) for n in (2, 3))
    assert states_of(two) == {0: ["overloaded", "misaligned", "active", "active"], 1: ["active", "withdrawn"]}
    assert states_of(three) == {0: ["active"] * 4, 1: ["active"] * 2}
    assert "Layer 0, group 0: overloaded → active. 2 measurements in a row gave no reason." in changes_in(three, 3)
    assert "Layer 1, group 1: withdrawn → active. It has come back." in changes_in(three, 3)


def test_groups_beyond_the_dense_number_have_their_place_and_cycles_may_measure_nothing():
    third = dict.fromkeys((0, 1, 3), (1 / 3, 1.0, 1.0))
    history = history_of({1: measured(CALM, PAIR), 2: {}, 3: measured(CALM, third)}, COUNTS)
    assert states_of(history) == {0: ["active"] * 4, 1: ["active", "active", "withdrawn", "active"]}


def test_a_model_without_attention_has_only_withdrawn_groups():
    assert states_of(history_of({1: measured()}, COUNTS)) == {0: ["withdrawn"] * 4, 1: ["withdrawn"] * 2}


def test_no_more_is_told_than_people_read():
    """Of every layer's four groups one is overloaded."""
    history = history_of({1: measured(*[STRAINED | {1: (0.1, 1.0, 1.0)}] * 30)}, [4] * 30)
    assert changes_in(history, 1).count("overloaded") == MOST_TOLD
    assert changes_in(history, 1).endswith("And 10 more.")
