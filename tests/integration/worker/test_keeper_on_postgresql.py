"""A lease outlives what PostgreSQL does to a worker that stood still in a transaction."""

import threading
import time

import pytest
from sqlalchemy import text

from api.store import jobs, leases
from worker.keeper import LeaseKeeper

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LEASE_S = 60


@pytest.fixture
def claim(database):
    with database.transaction() as session:
        jobs.accept_job(session, tenant="t", spec={}, max_attempts=3)
    with database.transaction() as session:
        return leases.claim_next(session, worker="test", lease_s=LEASE_S)


def stand_still(session):
    """Longer than the server waits for a transaction's next word."""
    session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
    time.sleep(0.5)


def test_a_beat_that_was_cut_off_is_not_the_last(database, claim, monkeypatch):
    beat, beats = leases.heartbeat, []

    def stand_still_once(session, *arguments):
        beats.append(time.monotonic())
        if len(beats) == 1:
            stand_still(session)
        return beat(session, *arguments)

    monkeypatch.setattr(leases, "heartbeat", stand_still_once)
    lost = threading.Event()
    with LeaseKeeper(database, claim, lease_s=LEASE_S, heartbeat_s=0.1, on_lost=lost.set) as keeper:
        deadline = time.monotonic() + 30
        while len(beats) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        keeper.check()
    assert not lost.is_set()


def test_a_write_that_was_cut_off_is_tried_again(database, claim):
    tries = []

    def write(session):
        tries.append(1)
        if len(tries) == 1:
            stand_still(session)
        leases.record_checkpoint(session, claim, 1, [])

    LeaseKeeper(database, claim, lease_s=LEASE_S, heartbeat_s=1, on_lost=lambda: None).write(write)
    assert len(tries) == 2
    with database.reading() as session:
        assert jobs.get_job(session, "t", claim.job_id).kept_cycle == 1
