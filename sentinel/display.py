"""What a person sees of an experiment in a terminal: progress while it runs, a table when it is done.

Knows events and results, wherever they come from. Without a terminal it prints plain lines: every phase, and every
tenth of the way.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from sentinel.events import Event, Failed, MessageLogged, MetricRecorded, PhaseStarted, Progressed
from sentinel.result import Measurement, Result
from sentinel.stress_result import StressResult

# What the time that is left is told from: long, as phases take their steps at different speeds.
SPEED_PERIOD_S = 600.0


class _Display:
    """A bar that is drawn while it is the context."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class ProgressDisplay(_Display):
    """A reporter that draws a progress bar with phase, latest number and the time that is left; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = "waiting"
        self._number = ""
        self._tenths = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=SPEED_PERIOD_S,
        )
        self._task = self._progress.add_task(self._phase, total=1.0)

    def emit(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, PhaseStarted):
            self._phase = event.phase.value + (f" · cycle {event.cycle}" if event.cycle else "")
            self._line(self._phase)
        elif isinstance(event, MetricRecorded):
            self._number = f" · {event.name} {event.value:.4f}"
        elif isinstance(event, Progressed):
            self._advance(event.fraction)
        elif isinstance(event, MessageLogged):
            self._say(event.text)
        elif isinstance(event, Failed):
            self._say(event.error["message"], style="red")
        self._progress.update(self._task, description=self._phase + self._number)

    def _advance(self, fraction: float) -> None:
        self._progress.update(self._task, completed=fraction)
        if int(fraction * 10) > self._tenths:
            self._tenths = int(fraction * 10)
            left_s = self._progress.tasks[self._task].time_remaining
            left = f" · about {timedelta(seconds=round(left_s))} left" if left_s else ""
            self._line(f"{self._phase}{self._number} · {fraction:.0%}{left}")

    def _line(self, text: str) -> None:
        """For whoever sees no bar."""
        if not self._console.is_terminal:
            self._say(text)

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


class TransferDisplay(_Display):
    """A bar of bytes; a context manager. Without a terminal it says nothing."""

    def __init__(self, console: Console, what: str) -> None:
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("")

    def tell(self, done: int, total: int) -> None:
        """Show how many bytes of how many are there."""
        self._progress.update(self._task, completed=done, total=total)


class SweepDisplay(_Display):
    """A bar of what is done of a sweep, with its jobs by state; a context manager.

    Without a terminal it is a line whenever a job changes.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1.0)

    def tell(self, counts: Mapping[str, int], progress: float) -> None:
        """Show how many jobs are in which state."""
        words = " · ".join(f"{count} {state}" for state, count in counts.items() if count)
        self._progress.update(self._task, description=words, completed=progress)
        if words != self._told and not self._console.is_terminal:
            self._console.print(f"{words} · {progress:.0%}", highlight=False, markup=False, soft_wrap=True)
        self._told = words


def result_tables(result: Result) -> Group:
    """Before and after, and what `evaluate.stress` came to."""
    return Group(_comparison(result), *(stress_tables(result.stress) if result.stress else ()))


def _comparison(result: Result) -> Table:
    """One row per measured quantity."""
    table = Table(
        title="before and after", title_justify="left", caption=result.memory.sentence(), caption_justify="left"
    )
    for name, justify in (("", "left"), ("dense", "right"), ("pruned", "right"), ("change", "right")):
        table.add_column(name, justify="left" if justify == "left" else "right")
    for label, attribute, form in _ROWS:
        before, after = _value(result.dense, attribute), _value(result.pruned, attribute)
        change = f"{(after / before - 1) * 100:+.1f} %" if before else ""
        table.add_row(label, format(before, form), format(after, form), change)
    if result.warm_up:
        loaded = f"{result.warm_up.loaded_loss:.4f}"
        table.add_row(f"loss before the warm-up of {result.warm_up.steps} steps", loaded, "", "")
    table.add_row("KL(dense ‖ pruned), nats/token", "", f"{result.pruned.kl_to_dense:.4f}", "")
    table.add_row("same first choice as dense", "", f"{result.pruned.agreement:.1%}", "")
    for found in result.tasks:
        table.add_row(f"{found.task}, {found.metric}", *found.cells())
    return table


def stress_tables(stress: StressResult) -> Iterator[Table]:
    """A table per measurement of `evaluate.stress`."""
    for title, header, rows in stress.tables():
        table = Table(title=title, title_justify="left")
        for number, heading in enumerate(header):
            table.add_column(heading, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        yield table


_ROWS = (
    ("attention groups", "groups.attention", ","),
    ("MLP neurons", "groups.mlp", ","),
    ("parameters", "parameters", ","),
    ("loss, nats/token", "loss", ".4f"),
    ("perplexity", "perplexity", ".3f"),
    ("KV cache, bytes/token", "kv_bytes_per_token", ","),
    ("latency, ms", "latency_ms", ".2f"),
)


def _value(measurement: Measurement, attribute: str) -> float:
    value: object = measurement
    for name in attribute.split("."):
        value = getattr(value, name)
    assert isinstance(value, int | float)  # noqa: S101 - every row of _ROWS names a number
    return value
