"""Decides by fixed thresholds on what was measured. Deterministic; learns nothing.

Each threshold is on a number without a scale (see `situation`, `overload`). docs/controller.md says why each is where
it is.
"""

from pathlib import Path
from typing import Any

from sentinel.controller.actions import Action, available, carry_out
from sentinel.controller.measurements import Measurements, Outcome
from sentinel.controller.memory import Memory
from sentinel.controller.overload import OVERLOADED, overloaded, strains
from sentinel.controller.situation import Situation, assess
from sentinel.result import DecisionRecord

# Share of the dense model's loss that the last cut still costs, from which the model is badly hurt.
BADLY_HURT = 0.5
# Share of the last cut's damage, from which most of it is unhealed.
MOSTLY_UNHEALED = 0.5
# Share of the excess loss that another plain cycle's healing would win, from which healing is still winning.
STILL_WINNING = 0.15
# This cycle and two more, for what is held back would else all be cut in the last.
CYCLES_TO_CATCH_UP = 3
# Share of the last cut's damage, and of the dense model's loss, up to which the cut was healed cheaply; either will do.
CHEAP_DEBT = 0.25
CHEAP_UNHEALED = 0.05


class RuleController:
    """The first of its rules that applies decides."""

    def __init__(self, memory: Memory, *, grow: float) -> None:
        """Go on from what is remembered; `grow` is as of `available`."""
        self._memory, self._grow = memory, grow

    def decide(self, now: Measurements) -> DecisionRecord:
        """As `Controller` says."""
        memory = self._memory.at(now)
        situation = assess(now, memory)
        strain = strains(now, memory.dense_entropy)
        action, reason = self._choose(now, situation, held=memory.holds, strained=overloaded(now, strain))
        grounds = {**situation.numbers(), **{f"strain_{layer}": value for layer, value in strain.items()}}
        decision = carry_out(action, now, memory, grow=self._grow, grounds=grounds, reason=reason)
        self._memory = memory.having(decision, now)
        return decision

    def learn(self, outcome: Outcome) -> None:
        """What came of a cycle is measured before the next."""

    def state(self) -> dict[str, Any]:
        """As `Controller` says."""
        return self._memory.model_dump(mode="json")

    def save(self, folder: Path) -> None:
        """Nothing: a later job needs nothing of it."""

    def _choose(self, now: Measurements, at: Situation, *, held: bool, strained: list[int]) -> tuple[Action, str]:
        hurt = at.unhealed >= BADLY_HURT and at.debt >= MOSTLY_UNHEALED
        can_wait = at.gain >= STILL_WINNING and now.cycles_left >= CYCLES_TO_CATCH_UP and not held
        cheap = at.debt <= CHEAP_DEBT or at.unhealed <= CHEAP_UNHEALED
        rules = [
            (now.cycle == 1, Action.PLAN, "The first cycle goes as planned: nothing has been cut yet."),
            (hurt and can_wait, Action.HOLD, _because(at, "that is still winning: heal before the next cut")),
            (hurt, Action.HEAL, _because(at, "waiting would win little: cut as planned, heal longer")),
            (bool(strained), Action.GROW, _grow_because(strained)),
            (cheap, Action.FURTHER, _because(at, "the cut was cheap: cut further than planned")),
            (not now.is_last, Action.SPARE, _because(at, "that can wait: keep steps for after the last cut")),
            (True, Action.PLAN, "Cut as planned, with a fair share of the healing steps."),
        ]
        able = available(now, grow=self._grow)
        return next((action, reason) for applies, action, reason in rules if applies and action in able)


def _because(at: Situation, conclusion: str) -> str:
    return (
        f"Of the last cut's damage {at.debt:.0%} is unhealed, {at.unhealed:.1%} of the dense model's loss, and another "
        f"plain healing would win {at.gain:.0%} of the excess: {conclusion}."
    )


def _grow_because(strained: list[int]) -> str:
    return (
        f"Layer(s) {', '.join(map(str, strained))} strain at least {OVERLOADED:g} times as much as the median layer: "
        "grow there what the others give up."
    )
