"""What a cycle can be told to do, and what each of it means in progress and healing steps. Chooses nothing."""

from enum import StrEnum
from typing import Literal

from sentinel.controller.measurements import Measurements
from sentinel.controller.memory import Memory
from sentinel.controller.overload import leave_a_choice, overloaded, strains
from sentinel.result import DecisionRecord

# Of the way that the schedule leaves open after this cycle, what `further` does at once.
FURTHER_SHARE = 0.5
# Healing steps, in fair shares: what is left of them over the cycles that are left.
SPARING, LONGER = 0.5, 1.5


class Action(StrEnum):
    """Whatever is not said is as the schedule has it, with a fair share of the healing steps."""

    PLAN = "plan"
    FURTHER = "further"
    SPARE = "spare"
    HEAL = "heal"
    HOLD = "hold"
    GROW = "grow"


_OUTSTANDING: dict[Action, Literal["prune", "hold", "heal", "grow"]] = {
    Action.HEAL: "heal",
    Action.HOLD: "hold",
    Action.GROW: "grow",
}
_SHARES = {Action.SPARE: SPARING, Action.HEAL: LONGER}


def available(now: Measurements, *, grow: float) -> list[Action]:
    """Actions that would do something of their own in this cycle.

    Args:
        now: What was measured.
        grow: Share of the dense model's groups that a cycle may grow; 0 for none.
    """
    heals, way_left = now.steps_left > 0, not now.is_last
    possible = {
        Action.PLAN: True,
        Action.FURTHER: way_left and now.planned < 1,
        Action.SPARE: heals,
        Action.HEAL: heals and way_left,
        Action.HOLD: heals and way_left and now.progress > 0,
        Action.GROW: grow > 0 and now.may_grow and way_left and now.progress > 0,
    }
    return [action for action, can in possible.items() if can]


def carry_out(
    action: Action,
    now: Measurements,
    memory: Memory,
    *,
    grow: float,
    grounds: dict[str, float],
    reason: str,
) -> DecisionRecord:
    """The decision that an action comes to.

    What grows, grows in the overloaded layers, and they are protected from the cut that makes room for it; where
    there are none, anywhere.

    Args:
        action: One of those that are available.
        now: What was measured.
        memory: What is remembered of earlier cycles.
        grow: As of `available`.
        grounds: Name → number it was decided on.
        reason: In a sentence.
    """
    progress = _progress(action, now)
    share = grow if action is Action.GROW else 0.0
    layers = overloaded(now, strains(now, memory.dense_entropy)) if share else []
    protects = leave_a_choice(now, protected=layers, progress=progress, grow=share)
    return DecisionRecord(
        action=_OUTSTANDING.get(action, "prune"),
        progress=progress,
        grow=share,
        steps=_steps(action, now),
        protected_layers=layers if protects else [],
        grow_layers=layers,
        measurements=grounds,
        reason=reason,
    )


def _progress(action: Action, now: Measurements) -> float:
    """Never less than is done, and all of it in the last cycle."""
    if now.is_last:
        return 1.0
    if action is Action.HOLD:
        return now.progress
    ahead = FURTHER_SHARE * (1 - now.planned) if action is Action.FURTHER else 0.0
    return max(now.progress, now.planned + ahead)


def _steps(action: Action, now: Measurements) -> int:
    """At least one where there are as many as cycles, and one is left for each of the others."""
    wanted = round(now.steps_left / now.cycles_left * _SHARES.get(action, 1.0))
    most = now.steps_left - (now.cycles_left - 1)
    return max(min(1, now.steps_left), min(wanted, most))
