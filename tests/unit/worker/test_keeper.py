import threading
import time

import pytest
from sqlalchemy import text

from api.store import jobs, leases, reconciliation
from api.store.database import create_database, upgrade
from api.store.errors import LeaseLost
from api.store.leases import Command
from api.store.models import Job
from worker.keeper import LeaseKeeper


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path / 'sentinel.db'}"
    upgrade(url)
    database = create_database(url)
    yield database
    database.close()


@pytest.fixture
def claim(database):
    return claim_one(database, lease_s=0.6)


def claim_one(database, *, lease_s):
    with database.transaction() as session:
        jobs.accept_job(session, tenant="t", spec={}, max_attempts=3)
    with database.transaction() as session:
        return leases.claim_next(session, worker="test", lease_s=lease_s)


def expire(database):
    """What the reconciler and another worker do to a lease that ran out."""
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = '2000-01-01 00:00:00.000000'"))
        reconciliation.reconcile(session, limit=100)
        session.execute(text("UPDATE jobs SET not_before = '2000-01-01 00:00:00.000000'"))
        return leases.claim_next(session, worker="other", lease_s=60)


def test_a_kept_lease_outlives_its_first_expiry(database):
    claim, lost = claim_one(database, lease_s=2), threading.Event()
    with LeaseKeeper(database, claim, lease_s=2, heartbeat_s=0.1, on_lost=lost.set) as keeper:
        assert not lost.wait(2.5)
        keeper.check()
        with database.transaction() as session:
            assert reconciliation.reconcile(session, limit=100).waiting == []


def test_a_lease_that_went_to_another_worker_stops_the_work_and_every_write(database, claim):
    lost = threading.Event()
    with LeaseKeeper(database, claim, lease_s=60, heartbeat_s=0.1, on_lost=lost.set) as keeper:
        other = expire(database)
        assert other.token == claim.token + 1
        assert lost.wait(5)
        with pytest.raises(LeaseLost):
            keeper.write(lambda session: session.execute(text("UPDATE jobs SET name = 'written'")))
    with database.reading() as session:
        assert session.get(Job, claim.job_id).name is None


def test_a_database_that_is_gone_stops_the_work_before_the_lease_has_run_out(database, claim):
    lost = threading.Event()
    with LeaseKeeper(database, claim, lease_s=4, heartbeat_s=2, on_lost=lost.set):
        with database.transaction() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO unreachable"))
        gone = time.monotonic()
        assert lost.wait(10)
        assert time.monotonic() - gone < 4


def test_a_write_waits_for_a_database_that_comes_back(database):
    claim = claim_one(database, lease_s=60)
    keeper = LeaseKeeper(database, claim, lease_s=60, heartbeat_s=10, on_lost=lambda: None)
    with database.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO unreachable"))

    def come_back():
        with database.transaction() as session:
            session.execute(text("ALTER TABLE unreachable RENAME TO jobs"))

    timer = threading.Timer(0.3, come_back)
    timer.start()
    keeper.write(lambda session: leases.record_checkpoint(session, claim, 1, []))
    timer.join()
    with database.reading() as session:
        assert jobs.list_events(session, claim.job_id, limit=10)[-1].type == "checkpoint"


def test_the_owner_s_cancel_is_heard_with_a_heartbeat(database, claim):
    with LeaseKeeper(database, claim, lease_s=0.6, heartbeat_s=0.1, on_lost=lambda: None) as keeper:
        with database.transaction() as session:
            jobs.request_cancel(session, "t", claim.job_id, grace_s=30)
        deadline = time.monotonic() + 5
        while keeper.order.command is not Command.CANCEL:
            assert time.monotonic() < deadline
