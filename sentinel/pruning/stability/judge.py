"""Decides what becomes of a step from its loss and gradient. Knows numbers, no model."""

import math
from collections.abc import Sequence
from enum import Enum, auto

from sentinel.pruning.stability.levels import Stability
from sentinel.pruning.stability.spikes import SpikeDetector

# Steps in a row that may be left out, and how often the weights may be put back, before training is given up.
MAX_LEFT_OUT = 5
MAX_PUT_BACK = 5


class Verdict(Enum):
    """What to do with a step's gradient."""

    LEARN = auto()
    LEAVE_OUT = auto()
    PUT_BACK = auto()
    GIVE_UP = auto()


class Judge:
    """Judges step after step.

    A batch that is out of the ordinary is left out. If the next one is no better, the weights are to blame, and are
    put back, where the level does that.

    Args:
        stability: What may be done.
        losses: Ordinary losses so far.
        left_out: Steps left out so far.
        put_back: How often the weights were put back so far.
    """

    def __init__(
        self, stability: Stability, *, losses: Sequence[float] = (), left_out: int = 0, put_back: int = 0
    ) -> None:
        self._stability = stability
        self._spikes = SpikeDetector(losses)
        self._in_a_row = 0
        self.left_out = left_out
        self.put_back = put_back

    @property
    def losses(self) -> Sequence[float]:
        """The ordinary losses that the next is judged by."""
        return self._spikes.losses

    def judge(self, loss: float, norm: float) -> tuple[Verdict, str]:
        """The verdict, and what was out of the ordinary.

        Args:
            loss: Of the batch.
            norm: Of its gradient.
        """
        if trouble := self._trouble(loss, norm):
            return self._verdict(), trouble
        self._in_a_row = 0
        return Verdict.LEARN, ""

    def _trouble(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"the loss was {loss:.6g}, the norm of its gradient {norm:.6g}"
        if self._stability.puts_back and self._spikes.is_spike(loss):
            return f"the loss jumped to {loss:.6g}"
        return ""

    def _verdict(self) -> Verdict:
        if not self._stability.leaves_out:
            return Verdict.GIVE_UP
        self._in_a_row += 1
        if self._in_a_row > 1 and self._stability.puts_back:
            return self._put_back()
        self.left_out += 1
        return Verdict.GIVE_UP if self._in_a_row > MAX_LEFT_OUT else Verdict.LEAVE_OUT

    def _put_back(self) -> Verdict:
        self.left_out += 1
        self.put_back += 1
        self._in_a_row = 0
        return Verdict.GIVE_UP if self.put_back > MAX_PUT_BACK else Verdict.PUT_BACK
