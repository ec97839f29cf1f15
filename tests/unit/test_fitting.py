"""Tables in narrow terminals: ids stay whole, words unbroken, and nothing vanishes."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from sentinel import tables
from sentinel.fitting import fitted
from sentinel.replies import JobSummary, SweepRow
from sentinel.showing import show
from tests.scripted_service import JOB

IDS = [f"job_019b2f5e6a7c7d10b3c4d5e6f708192{n}" for n in range(3)]
NAMES = ["tiny", "a long name of several words", None]


def jobs():
    wide = {"state": "cancelling", "phase": "calibrating", "created_at": datetime(2030, 12, 31, 23, 59, 58, tzinfo=UTC)}
    return [JobSummary.model_validate(JOB | wide | {"id": i, "name": n}) for i, n in zip(IDS, NAMES, strict=True)]


def shown(table, width):
    text = io.StringIO()
    console = Console(file=text, width=width)
    console.print(fitted(table, width))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_where_there_is_room_a_row_is_a_line():
    lines = shown(tables.jobs(jobs()), 200)
    assert len(lines) == 4
    assert lines[0].split() == ["id", "name", "state", "phase", "done", "created"]


def test_between_words_rows_wrap():
    lines = shown(tables.jobs(jobs()), 100)
    assert lines[0].split() == ["id", "name", "state", "phase", "done", "created"]
    assert len(lines) > 4


@pytest.mark.parametrize("width", [45, 60, 80, 90, 91, 92, 93, 100, 120, 200])
def test_nothing_is_broken_or_vanishes(width):
    words = " ".join(shown(tables.jobs(jobs()), width)).split()
    for name in ("id", "name", "state", "phase", "done", "created"):
        assert name in words
    for word in (*IDS, "tiny", "cancelling", "calibrating", "100%", "several", "2030-12-31"):
        assert word in words


def test_the_table_of_a_sweep_keeps_ids_whole():
    point = {"prune.target.sparsity": 0.25, "prune.strategy": "magnitude", "seed": 1}
    rows = [
        SweepRow.model_validate(
            {"point": point, "jobs": [{"id": i, "state": "succeeded"}], "result": None, "spread": None}
        )
        for i in IDS
    ]
    words = " ".join(shown(tables.sweep_rows(rows), 80)).split()
    assert {*IDS, *point, "magnitude", "succeeded"} <= set(words)
    assert "0.25" in " ".join(shown(tables.sweep_rows(rows), 45))


def test_a_list_of_nothing_is_its_headings_wherever_they_fit():
    assert shown(tables.jobs([]), 80)[0].split() == ["id", "name", "state", "phase", "done", "created"]


def test_commands_show_lists_so(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr("sentinel.showing.output", lambda: Console(file=text, width=45))
    show(jobs(), tables.jobs(jobs()), as_json=False)
    assert set(IDS) | {"created"} <= set(text.getvalue().split())
