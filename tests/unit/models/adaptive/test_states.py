import pytest
import torch

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.signals import Signals, measure_signals, signals_of
from sentinel.models.adaptive.states import FACTORS, History, Thresholds, apply_effects
from tests.unit.models.conftest import make_loaded

FAIR = (0.25, 0.25, 0.25, 0.25)


def signals(*, importance=(1, 1, 1, 1), utilisation=FAIR, gradient_norm=(1, 1, 1, 1), gate=(1, 1, 1, 1)):
    return Signals(
        importance={0: importance},
        entropy={0: (1, 1, 1, 1)},
        utilisation={0: utilisation},
        gradient_norm={0: gradient_norm},
        gate={0: gate},
    )


CALM = signals()
OVERLOADED = signals(utilisation=(0.7, 0.1, 0.1, 0.1))
MISALIGNED = signals(importance=(0.1, 1, 1, 1), gradient_norm=(9, 1, 1, 1))
IDLE = signals(importance=(0.01, 1, 1, 1), utilisation=(0.01, 0.33, 0.33, 0.33))
CLOSED = signals(gate=(0.01, 1, 1, 1))


def states(history):
    return [history.standing(0, group).state for group in range(4)]


@pytest.mark.parametrize(
    ("measured", "state", "reason"),
    [
        (CALM, "active", None),
        (OVERLOADED, "overloaded", "70% of the energy of 4 groups"),
        (MISALIGNED, "misaligned", "gradient is 3 of the layer's mean"),
        (IDLE, "withdrawn", "Utilisation 0.04"),
        (CLOSED, "withdrawn", "gate is 0.01"),
        # On the other side of each threshold.
        (signals(utilisation=(0.624, 0.126, 0.125, 0.125)), "active", None),
        (signals(importance=(0.1, 1, 1, 1), gradient_norm=(2.9, 1, 1, 1)), "active", None),
        (signals(importance=(0.9, 1, 1, 1), gradient_norm=(9, 1, 1, 1)), "active", None),
        (signals(importance=(0.01, 1, 1, 1)), "active", None),
        (signals(gate=(0.02, 1, 1, 1)), "active", None),
    ],
)
def test_a_state_begins_where_its_threshold_is_crossed(measured, state, reason):
    history = History().observed(7, measured)
    assert states(history) == [state, "active", "active", "active"]
    if reason is None:
        assert history.timeline == ()
    else:
        (entry,) = history.timeline
        assert (entry.step, entry.layer, entry.group, entry.before, entry.after) == (7, 0, 0, "active", state)
        assert reason in entry.reason


def test_thresholds_are_the_caller_s():
    history = History(thresholds=Thresholds(overload=0.7)).observed(0, OVERLOADED)
    assert states(history) == ["active"] * 4


def test_a_single_group_is_never_overloaded():
    alone = {0: (1.0,)}
    history = History().observed(
        0, Signals(importance=alone, entropy=alone, utilisation=alone, gradient_norm=alone, gate=alone)
    )
    assert history.timeline == ()


def test_recovery_takes_measurements_in_a_row():
    history = History()
    for step, measured in enumerate([OVERLOADED, CALM, OVERLOADED, CALM, CALM, CALM]):
        history = history.observed(step, measured)
    changes = [(entry.step, entry.before, entry.after) for entry in history.timeline]
    assert changes == [(0, "active", "overloaded"), (4, "overloaded", "active")]


def test_one_state_gives_way_to_another_at_once():
    history = History().observed(0, OVERLOADED).observed(1, IDLE)
    assert [(entry.before, entry.after) for entry in history.timeline] == [
        ("active", "overloaded"),
        ("overloaded", "withdrawn"),
    ]


def test_a_history_resumes_from_json():
    """Also in the middle of a recovery."""
    history = History().observed(0, OVERLOADED).observed(1, CALM)
    resumed = History.model_validate_json(history.model_dump_json())
    assert resumed == history
    assert resumed.observed(2, CALM) == history.observed(2, CALM)
    assert states(resumed.observed(2, CALM)) == ["active"] * 4


def test_what_is_cut_is_withdrawn_and_starts_anew_when_it_comes_back():
    history = History().observed(0, OVERLOADED, groups={0: [0, 1, 2, 3]})
    rows = {0: (1.0, 1.0)}
    few = Signals(importance=rows, entropy=rows, utilisation={0: (0.9, 0.1)}, gradient_norm=rows, gate=rows)
    history = history.observed(1, few, groups={0: [1, 3]})
    assert states(history) == ["withdrawn", "overloaded", "withdrawn", "active"]
    assert [history.standing(0, group).removed for group in range(4)] == [True, False, True, False]
    reasons = {(entry.group, entry.reason) for entry in history.timeline if entry.step == 1}
    assert (2, "It is not in the model any more.") in reasons
    back = history.observed(2, CALM, groups={0: [0, 1, 2, 3]})
    assert states(back) == ["active", "overloaded", "active", "active"]
    assert [(e.group, e.before, e.after, e.reason) for e in back.timeline if e.step == 2] == [
        (0, "withdrawn", "active", "It has come back."),
        (2, "withdrawn", "active", "It has come back."),
    ]


def test_a_layer_that_lost_every_group_is_withdrawn_whole():
    history = History().observed(0, CALM)
    empty = Signals(importance={}, entropy={}, utilisation={}, gradient_norm={}, gate={})
    assert states(history.observed(1, empty, groups={0: []})) == ["withdrawn"] * 4


def adaptive_of(kind="soft"):
    model, _, family = make_loaded("llama-gqa")
    return AdaptiveModel(model.requires_grad_(False), family, kind=kind)


def test_states_only_describe_until_effects_are_asked_for(tokens):
    adaptive = adaptive_of()
    with adaptive:
        history = History(thresholds=Thresholds(overload=0)).observed(0, signals_of(adaptive, tokens))
    assert {entry.after for entry in history.timeline} == {"overloaded"}
    assert all((values == 1).all() for values in adaptive.values())


@pytest.mark.parametrize("kind", ["soft", "learnable"])
@pytest.mark.parametrize(
    ("measured", "state"), [(OVERLOADED, "overloaded"), (MISALIGNED, "misaligned"), (IDLE, "withdrawn")]
)
def test_an_effect_is_seen_in_the_gate_and_the_timeline(kind, measured, state):
    adaptive = adaptive_of(kind)
    adaptive.set("attention", 0, {0: 0.8})
    history = apply_effects(adaptive, History().observed(3, measured), step=4)
    assert adaptive.gate("attention", 0, 0) == pytest.approx(0.8 * FACTORS[state], abs=1e-6)
    assert [adaptive.gate("attention", 0, group) for group in (1, 2, 3)] == [1, 1, 1]
    entry = history.timeline[-1]
    assert (entry.step, entry.before, entry.after) == (4, state, state)
    assert "set from 0.8" in entry.reason
    again = apply_effects(adaptive, history, step=5)
    assert again == history  # factors do not pile up
    assert adaptive.gate("attention", 0, 0) == pytest.approx(0.8 * FACTORS[state], abs=1e-6)


def test_what_recovers_gets_its_own_gate_back():
    adaptive = adaptive_of()
    adaptive.set("attention", 0, {0: 0.8})
    history = apply_effects(adaptive, History().observed(0, OVERLOADED), step=0)
    history = apply_effects(adaptive, history.observed(1, MISALIGNED), step=1)
    assert adaptive.gate("attention", 0, 0) == pytest.approx(0.56)
    history = apply_effects(adaptive, history.observed(2, CALM).observed(3, CALM), step=3)
    assert adaptive.gate("attention", 0, 0) == pytest.approx(0.8)
    assert history.standing(0, 0).gate is None
    assert history.timeline[-1].reason.startswith("The gate was set from 0.56 to 0.8")


def test_a_group_that_an_effect_closed_is_tried_again(tokens):
    """Measured on a model in which it shows nothing, as it is closed."""
    adaptive = adaptive_of()
    history = apply_effects(adaptive, History().observed(0, IDLE), step=0)
    with adaptive:
        for step in (1, 2):
            history = history.observed(step, signals_of(adaptive, tokens))
            history = apply_effects(adaptive, history, step=step)
        assert adaptive.gate("attention", 0, 0) == 1
        assert "tried again" in history.timeline[-2].reason
        history = history.observed(3, measure_signals(adaptive.model, adaptive.family, tokens))
    assert history.standing(0, 0).state == "active"


def test_a_group_that_somebody_else_closed_stays_withdrawn():
    adaptive = adaptive_of()
    adaptive.set("attention", 0, {0: 0.01})
    history = History()
    for step in range(6):
        history = apply_effects(adaptive, history.observed(step, CLOSED), step=step)
    assert states(history)[0] == "withdrawn"
    changes = [entry for entry in history.timeline if entry.before != entry.after]
    assert [(entry.step, entry.after) for entry in changes] == [(0, "withdrawn")]


def test_a_group_that_no_effect_has_closed_yet_is_not_tried_again():
    history = apply_effects(adaptive_of(), History().observed(0, OVERLOADED), step=0)
    for step in (1, 2, 3):
        history = history.observed(step, IDLE)
    assert states(history)[0] == "withdrawn"


def test_hard_gates_have_no_half_effects():
    with pytest.raises(ValueError, match="0 or 1"):
        apply_effects(adaptive_of("hard"), History().observed(0, OVERLOADED), step=0)
    adaptive = adaptive_of("hard")
    apply_effects(adaptive, History().observed(0, IDLE), step=0)
    assert adaptive.gate("attention", 0, 0) == 0


def test_refused_effects_close_nothing():
    adaptive = adaptive_of("hard")
    first_closes = signals(importance=(0.01, 1, 1, 1), utilisation=(0.01, 0.97, 0.01, 0.01))
    history = History().observed(0, first_closes)
    assert states(history)[:2] == ["withdrawn", "overloaded"]
    with pytest.raises(ValueError, match="0 or 1"):
        apply_effects(adaptive, history, step=0)
    assert all((values == 1).all() for values in adaptive.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gate_that_its_data_type_rounds_is_set_once(dtype):
    model, _, family = make_loaded("llama-gqa")
    adaptive = AdaptiveModel(model.to(dtype).requires_grad_(False), family)
    history = apply_effects(adaptive, History().observed(0, MISALIGNED), step=0)
    assert len(history.timeline) == 2
    assert apply_effects(adaptive, history, step=1) == history
