"""Tells a reporter how far an experiment is; keeps the seconds of every phase and every number that was recorded."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from sentinel.events import MessageLogged, MetricRecorded, Phase, PhaseStarted, Progressed, Reporter
from sentinel.utils.series import Point, Series

# Share of the whole run that each cycle's measuring and cutting takes, in units of healing steps.
CUT_STEPS = 10


class ProgressTracker:
    """Owns the clock and the step count of one run.

    Args:
        reporter: Hears of everything.
        earlier: What the run that is resumed had recorded.

    Attributes:
        series: Name → points, those of earlier attempts included.
        step: Healing steps over the whole run so far.
        timings_s: Seconds per phase, those of earlier attempts included.
    """

    def __init__(self, reporter: Reporter, *, earlier: Series) -> None:
        self._reporter = reporter
        self.series = defaultdict(list, {name: list(points) for name, points in earlier.items()})
        self._cycle: int | None = None
        self._total = 1
        self.step = 0
        self.timings_s: defaultdict[str, float] = defaultdict(float)

    def plan(self, *, cycles: int, steps_per_cycle: int, steps_before: int = 0) -> None:
        """Say how long the whole run will be, once the text is loaded, with what it trains before the first cycle."""
        self._total = steps_before + cycles * (CUT_STEPS + steps_per_cycle) + CUT_STEPS

    def add_timings(self, timings_s: Mapping[str, float]) -> None:
        """Take over the seconds of earlier attempts."""
        for phase, seconds in timings_s.items():
            self.timings_s[phase] += seconds

    @contextmanager
    def phase(self, phase: Phase, *, cycle: int | None = None) -> Iterator[None]:
        """Announce a phase and time it."""
        self._cycle = cycle
        self._reporter.emit(PhaseStarted(phase=phase, cycle=cycle))
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings_s[phase.value] += time.monotonic() - start

    def metric(self, name: str, value: float) -> None:
        """Record a number at the current step."""
        self.series[name].append(Point(self.step, value, self._cycle))
        self._reporter.emit(MetricRecorded(name=name, value=value, step=self.step, cycle=self._cycle))

    def message(self, text: str, *, level: Literal["info", "warning"] = "info") -> None:
        """Say a decision and its reason."""
        self._reporter.emit(MessageLogged(level=level, text=text))

    def advance(self, *, cuts: int, steps: int) -> None:
        """Set what is done of the whole run: `cuts` cycles cut, `steps` healing steps taken."""
        self.step = steps
        self._reporter.emit(Progressed(fraction=(cuts * CUT_STEPS + steps) / self._total))
