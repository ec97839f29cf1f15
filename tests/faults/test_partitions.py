"""PostgreSQL behind a network that swallows everything: both sides let go, and find each other again."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from api.store import database as module
from api.store import jobs, leases
from api.store.database import create_database, db_now, upgrade
from api.store.errors import LeaseLost
from api.store.models import Job
from tests.faults.campaign import database_of
from tests.faults.cluster import POSTGRES_SOCKET
from tests.faults.network import Cut, Network
from worker.keeper import LeaseKeeper

WHOLE_TEST_S = 300.0
LEASE_S = 6.0


@pytest.fixture(scope="module")
def server_url(tmp_path_factory):
    with database_of("postgresql", tmp_path_factory.mktemp("partitions")) as (url, _):
        upgrade(url)
        yield url


@pytest.fixture
def link(server_url):
    network = Network()
    yield network.link(Path(make_url(server_url).query["host"]) / POSTGRES_SOCKET)
    network.close()


@pytest.fixture
def far(server_url, link, monkeypatch):
    """The same database, through the network."""
    for name in ("LOST_AFTER_S", "PROBE_S"):
        monkeypatch.setattr(module, name, 1)
    database = create_database(
        make_url(server_url).set(host="127.0.0.1", port=link.port, query={}).render_as_string(hide_password=False)
    )
    yield database
    database.close()


def ask(database):
    with database.reading() as session:
        return session.scalar(text("SELECT 1"))


def ask_until_it_fails(database):
    while ask(database) == 1:
        pass  # the network's thread has not cut it yet


def take_a_seat(database):
    with database.transaction() as session:
        session.execute(text("UPDATE seats SET taken = taken + 1"))


def go_silent_with_a_seat(database, link, *, meanwhile):
    with database.transaction() as session:
        session.execute(text("SELECT * FROM seats FOR UPDATE"))
        link.cut(Cut.BLACK_HOLE, for_s=WHOLE_TEST_S)
        meanwhile()


def test_a_client_that_hears_nothing_gives_up_and_comes_back(far, link):
    assert ask(far) == 1
    link.cut(Cut.BLACK_HOLE, for_s=WHOLE_TEST_S)
    with pytest.raises(OperationalError):
        ask_until_it_fails(far)
    link.heal()
    assert ask(far) == 1


def test_a_client_that_goes_silent_inside_a_transaction_loses_its_locks(server_url, far, link):
    near = create_database(server_url)
    with near.transaction() as session:
        session.execute(text("CREATE TABLE seats (taken int)"))
        session.execute(text("INSERT INTO seats VALUES (0)"))
    with pytest.raises(OperationalError):
        go_silent_with_a_seat(far, link, meanwhile=lambda: take_a_seat(near))
    with near.reading() as session:
        assert session.scalar(text("SELECT taken FROM seats")) == 1
    near.close()


def test_the_work_stops_before_the_lease_could_be_given_away(server_url, far, link):
    near = create_database(server_url)
    with near.transaction() as session:
        jobs.accept_job(session, tenant="t", spec={}, max_attempts=1)
        claim = leases.claim_next(session, worker="w", lease_s=LEASE_S)
    stopped = threading.Event()
    with LeaseKeeper(far, claim, lease_s=LEASE_S, heartbeat_s=LEASE_S / 2, on_lost=stopped.set) as keeper:
        link.cut(Cut.BLACK_HOLE, for_s=WHOLE_TEST_S)
        stopped.wait()  # a beat hangs meanwhile
        with near.reading() as session:
            assert session.scalar(select(Job.lease_expires_at > db_now()))
        with pytest.raises(LeaseLost):
            keeper.check()
    near.close()


def test_what_the_url_says_wins(server_url):
    database = create_database(f"{server_url}&options=-c%20idle_in_transaction_session_timeout%3D7s")
    with database.reading() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "7s"
    database.close()
