"""The numbers that a run has recorded, by name: kept while it runs, read from its folder afterwards, compared.

Knows the lines of `metrics.jsonl`; knows no model and no clock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from sentinel.errors import Fault, SentinelError
from sentinel.events import MetricRecorded
from sentinel.utils.checkpoints.cycle_state import METRICS_FILE


class Point(NamedTuple):
    """One measured number.

    Attributes:
        step: Healing steps over the whole run so far.
        value: In the unit of its series.
        cycle: In which, from 1; None outside cycles.
    """

    step: int
    value: float
    cycle: int | None


# Name → points, as they came.
Series = Mapping[str, Sequence[Point]]


class MetricsUnreadable(SentinelError):
    """A folder holds no metrics of a run, or something else under their name."""

    code = "metrics_unreadable"
    fault = Fault.USER
    next_step = "Name the --output folder of a `sentinel run`."


def read_series(folder: Path) -> Series:
    """What the run that wrote into `folder` has recorded; a state of a run will do too.

    Raises:
        MetricsUnreadable: There are no metrics, or a line of them is none.
    """
    file = folder / METRICS_FILE
    try:
        lines = file.read_bytes().splitlines()
        metrics = [MetricRecorded.model_validate_json(line) for line in lines]
    except (OSError, ValidationError) as error:
        raise MetricsUnreadable(f"Cannot read the metrics of a run in {folder}: {error}") from error
    series: defaultdict[str, list[Point]] = defaultdict(list)
    for metric in metrics:
        series[metric.name].append(Point(metric.step, metric.value, metric.cycle))
    return dict(series)


def compare(runs: Mapping[str, Series]) -> dict[str, dict[str, float]]:
    """Name → run → its last value, of the series that every run has, in the order of the first run."""
    first, *others = runs.values()
    shared = [name for name in first if all(name in series for series in others)]
    return {name: {run: series[name][-1].value for run, series in runs.items()} for name in shared}
