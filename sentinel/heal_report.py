"""Tells the listeners of a run of one cycle's healing: how far it is, its losses, what was out of the ordinary."""

from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.utils.progress_tracker import ProgressTracker


class HealingObserver(Observer):
    """Of one cycle.

    Args:
        tracker: Where it is told.
        cycle: Its number, from 1.
        steps_before: Of the cycles before it.
        series: Under which name its losses are recorded.
    """

    def __init__(
        self, tracker: ProgressTracker, *, cycle: int, steps_before: int, series: str = "healing_loss"
    ) -> None:
        self._tracker, self._cycle, self._steps_before, self._series = tracker, cycle, steps_before, series

    def stepped(self, step: int, loss: float) -> None:
        """Progress and the loss."""
        self._tracker.advance(cuts=self._cycle, steps=self._steps_before + step)
        self._tracker.metric(self._series, loss)

    def measured(self, _step: int, loss: float) -> None:
        """The held-out loss on the way."""
        self._tracker.metric("healing_held_out_loss", loss)

    def noticed(self, text: str) -> None:
        """A warning."""
        self._tracker.message(text, level="warning")
