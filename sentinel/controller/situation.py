"""How things stand before a cycle, in numbers without a scale, so that one threshold serves every model and target."""

from dataclasses import asdict, dataclass

from sentinel.controller.measurements import Measurements
from sentinel.controller.memory import Memory


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Losses are shares of the dense model's, so that 0.1 is a tenth of it.

    Attributes:
        excess: What the loss lies above the dense model's.
        unhealed: What the loss lies above that before the last cut.
        debt: The share of the last cut's damage that has not been healed: 0 all is healed, 1 nothing.
        gain: The share of the excess that a plain cycle's healing would win if it went on as the last quarter of
            the last healing did.
        way_left: Share of the way to the target that is to be done.
        planned: Share of the way that the spec's schedule has done after the cycle.
    """

    excess: float
    unhealed: float
    debt: float
    gain: float
    way_left: float
    planned: float

    def numbers(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def assess(now: Measurements, memory: Memory) -> Situation:
    """What was measured, put in proportion."""
    before, after = memory.loss_before_cut, memory.loss_after_cut
    unhealed = 0.0 if before is None else now.loss - before
    damage = 0.0 if before is None or after is None else after - before
    excess = now.loss - now.dense_loss
    return Situation(
        excess=excess / now.dense_loss,
        unhealed=unhealed / now.dense_loss,
        debt=_debt(unhealed, damage),
        gain=(now.healing_slope or 0.0) * now.steps_per_cycle / excess if excess > 0 else 0.0,
        way_left=1 - now.progress,
        planned=now.planned,
    )


def _debt(unhealed: float, damage: float) -> float:
    """Between 0 and 1, also where the cut was for the better or healing for the worse."""
    if unhealed <= 0:
        return 0.0
    return min(1.0, unhealed / damage) if damage > 0 else 1.0
