"""Tells a jump of the loss from its usual scatter. Knows numbers, nothing of training."""

import statistics
from collections import deque
from collections.abc import Iterable, Sequence

# Losses that are remembered, and how many there must be before one is judged.
WINDOW = 32
ENOUGH = 8
# A jump is all of this: further from the median than the usual scatter (in median absolute deviations; 8 of them are
# 5.4 standard deviations of a normal distribution); half as large again, as the scatter of a handful may be tiny; and
# 0.01 nats per token above it, as the divergence of a model that is hardly cut rises from nothing by factors.
DEVIATIONS = 8.0
FACTOR = 1.5
LEAST = 0.01


class SpikeDetector:
    """Judges each loss by the ordinary ones before it.

    Args:
        losses: Ordinary losses so far, of a run that goes on.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses: deque[float] = deque(losses, maxlen=WINDOW)

    @property
    def losses(self) -> Sequence[float]:
        """The ordinary losses that count, oldest first."""
        return tuple(self._losses)

    def is_spike(self, loss: float) -> bool:
        """Whether a loss, finite and ≥ 0, is out of the ordinary; if not, it is remembered."""
        if len(self._losses) >= ENOUGH and loss > self._limit():
            return True
        self._losses.append(loss)
        return False

    def _limit(self) -> float:
        median = statistics.median(self._losses)
        deviation = statistics.median(abs(loss - median) for loss in self._losses)
        return max(median + DEVIATIONS * deviation, FACTOR * median, median + LEAST)
