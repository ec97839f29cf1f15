"""The best weights so far by a held-out measurement, and how long ago they were."""

from collections.abc import Callable

from sentinel.pruning.stability.snapshot import Snapshot


class Best:
    """Remembers the best weights.

    Args:
        snapshot: Of the weights that are measured.
        measure: Measures them as they are now; less is better.
        loss: The best so far, None before the first.
        step: When that was.
        waited: Measurements since.
    """

    def __init__(
        self, snapshot: Snapshot, measure: Callable[[], float], *, loss: float | None, step: int, waited: int
    ) -> None:
        self.snapshot = snapshot
        self._measure = measure
        self.loss, self.step, self.waited = loss, step, waited

    def measure(self, step: int) -> float:
        """Measure the weights as they are, and remember them if none were better.

        Raises:
            LossNotFinite: As the measurement says; it counts as no better one.
        """
        self.waited += 1
        loss = self._measure()
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.waited = loss, step, 0
            self.snapshot.take()
        return loss
