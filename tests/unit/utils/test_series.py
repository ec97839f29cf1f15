"""The numbers of a run: kept, read back, taken on by a run that goes on, compared."""

import pytest

from sentinel.events import MetricRecorded, Phase
from sentinel.utils.metrics_log import MetricsLog
from sentinel.utils.progress_tracker import ProgressTracker
from sentinel.utils.series import MetricsUnreadable, Point, compare, read_series


class Silent:
    def emit(self, event):
        pass


def record(folder, *values, earlier=None, step=0):
    """A run that records losses of cycle 1; returns its tracker."""
    folder.mkdir()
    before = earlier / "metrics.jsonl" if earlier else None
    with MetricsLog(folder / "metrics.jsonl", Silent(), earlier=before) as log:
        tracker = ProgressTracker(log, earlier=read_series(earlier) if earlier else {})
        tracker.plan(cycles=1, steps_per_cycle=9)
        if earlier is None:
            tracker.metric("dense_loss", 0.5)
        with tracker.phase(Phase.HEALING, cycle=1):
            for number, value in enumerate(values, start=step + 1):
                tracker.advance(cuts=1, steps=number)
                tracker.metric("healing_loss", value)
    return tracker


def test_what_a_tracker_keeps_is_what_is_read_from_its_folder(tmp_path):
    tracker = record(tmp_path / "run", 2.0, 1.0)
    assert tracker.series == {
        "dense_loss": [Point(0, 0.5, None)],
        "healing_loss": [Point(1, 2.0, 1), Point(2, 1.0, 1)],
    }
    assert read_series(tmp_path / "run") == tracker.series


def test_a_run_that_goes_on_keeps_what_was_recorded_before(tmp_path):
    first = record(tmp_path / "first", 2.0)
    second = record(tmp_path / "second", 1.0, earlier=tmp_path / "first", step=1)
    assert [point.value for point in second.series["healing_loss"]] == [2.0, 1.0]
    assert second.series == read_series(tmp_path / "second")
    assert [point.value for point in first.series["healing_loss"]] == [2.0]


def test_compared_is_the_last_value_of_what_all_runs_have(tmp_path):
    runs = {name: record(tmp_path / name, *values).series for name, values in {"a": (2.0, 1.0), "b": (3.0,)}.items()}
    runs["a"]["speed"] = [Point(0, 9.0, None)]
    assert compare(runs) == {"dense_loss": {"a": 0.5, "b": 0.5}, "healing_loss": {"a": 1.0, "b": 3.0}}


@pytest.mark.parametrize("content", [None, b"no JSON\n", b'{"name": "loss"}\n', b"\xff\n"])
def test_what_is_no_metrics_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(MetricsUnreadable, match=tmp_path.name):
        read_series(tmp_path)


def test_every_line_of_a_log_is_a_point(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", Silent(), earlier=None) as log:
        log.emit(MetricRecorded(name="speed", value=1e-300, step=7, cycle=None))
    assert read_series(tmp_path) == {"speed": [Point(7, 1e-300, None)]}
