"""What needs no rows: which databases open, how SQLite is set, what a time is."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.exc import OperationalError, StatementError

from api.store.database import UtcDateTime, create_database, db_now


@pytest.fixture
def database(tmp_path):
    opened = create_database(f"sqlite:///{tmp_path / 'new folder' / 'sentinel.db'}")
    yield opened
    opened.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:hidden@host/jobs"])
def test_a_database_that_cannot_keep_jobs_is_refused(url):
    with pytest.raises(ValueError, match="Cannot keep jobs") as refused:
        create_database(url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)]
)
def test_sqlite_commits_durably_and_waits(database, pragma, value):
    with database.reading() as session:
        assert session.scalar(text(f"PRAGMA {pragma}")) == value


def test_the_clock_is_now_moved_by_the_offset(database):
    with database.reading() as session:
        now, earlier, later = session.execute(select(db_now(), db_now(-90.5), db_now(3600))).one()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=10)
    assert (now - earlier, later - now) == (timedelta(seconds=90.5), timedelta(hours=1))


def test_times_of_the_clock_and_of_python_compare(database):
    moment = datetime.now(timezone(timedelta(hours=5)))
    with database.reading() as session:
        assert session.scalar(select(literal(moment - timedelta(seconds=30), UtcDateTime) < db_now()))
        assert session.scalar(select(literal(moment + timedelta(seconds=30), UtcDateTime) > db_now()))


def test_a_time_keeps_its_moment(database):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=-3)))
    with database.reading() as session:
        back = session.scalar(select(literal(moment, UtcDateTime)))
    assert back == moment
    assert back.utcoffset() == timedelta(0)


def test_a_naive_time_is_refused(database):
    with database.reading() as session, pytest.raises(StatementError, match="names no point in time"):
        session.scalar(select(literal(datetime(2026, 1, 1), UtcDateTime)))  # noqa: DTZ001 - naive on purpose


def test_errors_name_no_values_as_they_go_to_the_log(database):
    with pytest.raises(OperationalError) as failed, database.reading() as session:
        session.execute(text("SELECT :value FROM nowhere"), {"value": "s3cr3t"})
    assert "s3cr3t" not in str(failed.value)
