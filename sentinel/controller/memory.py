"""What a controller remembers from one cycle of a run to the next. Knows no thresholds."""

from typing import Self

from pydantic import BaseModel, ConfigDict, FiniteFloat

from sentinel.controller.measurements import Measurements
from sentinel.result import DecisionRecord


class Memory(BaseModel):
    """Of the run at hand.

    Attributes:
        cycle: The last that was decided; 0 before the first.
        loss: Held-out, before it.
        cuts: Whether it was decided to cut.
        holds: Whether it was decided to hold.
        loss_before_cut: Held-out, before the last cut that is over; None before any.
        loss_after_cut: The same right after it.
        dense_entropy: Layer → attention group → mean attention entropy before anything was cut, in nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle: int = 0
    loss: FiniteFloat = 0.0
    cuts: bool = False
    holds: bool = False
    loss_before_cut: FiniteFloat | None = None
    loss_after_cut: FiniteFloat | None = None
    dense_entropy: dict[int, dict[int, FiniteFloat]] = {}

    def at(self, now: Measurements) -> Self:
        """What there is to remember once a cycle has been measured.

        Raises:
            ValueError: The cycle is not the one after the last.
        """
        if now.cycle == 1:
            return type(self)(dense_entropy={layer: dict(groups) for layer, groups in now.entropy.items()})
        if now.cycle != self.cycle + 1:
            raise ValueError(f"Cycle {now.cycle} cannot be decided: the last that was decided is {self.cycle}.")
        if not self.cuts:
            return self
        return self.model_copy(update={"loss_before_cut": self.loss, "loss_after_cut": now.cut_loss})

    def having(self, decision: DecisionRecord, now: Measurements) -> Self:
        """What there is to remember once it has been decided, too."""
        cuts = decision.progress > now.progress or decision.grow > 0
        update = {"cycle": now.cycle, "loss": now.loss, "cuts": cuts, "holds": decision.action == "hold"}
        return self.model_copy(update=update)
