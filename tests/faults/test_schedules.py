"""A few schedules of everything that can break, on both databases; `make faults` runs as many as wanted."""

import pytest

from tests.faults.campaign import run

# Those that once broke a promise on a database, so that they never do again; where none did, any.
SEEDS = {"sqlite": (17,), "postgresql": (0,)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_promise_breaks_whatever_else_does(kind, tmp_path):
    *_, report = run(kind, SEEDS[kind], tmp_path / "cluster")
    assert report.violations == []
    assert report.histories >= 20 * report.schedules
    assert report.states["succeeded"] > report.histories / 2
    assert sum(report.faults.values()) > report.schedules * 5
