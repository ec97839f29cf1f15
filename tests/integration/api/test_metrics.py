"""What Prometheus reads of the API: the queue as the database knows it, and what the process has done."""

import re

import pytest
from sqlalchemy import update

from api.reconciler import run_round
from api.store import leases
from api.store.database import db_now
from api.store.models import Job


def scrape(service):
    answer = service.client.get("/metrics", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = re.findall(r"^(sentinel_[^ ]+) ([^ ]+)$", answer.text, flags=re.MULTILINE)
    return {name: float(value) for name, value in lines}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_the_queue_is_counted_and_its_age_told(service):
    empty = scrape(service)
    assert empty['sentinel_jobs{state="queued"}'] == empty["sentinel_queue_age_seconds"] == 0
    service.submit()
    service.submit()
    service.finish(service.claim())
    with service.database.transaction() as session:
        session.execute(update(Job).where(Job.state == "queued").values(not_before=db_now(-90)))
    found = scrape(service)
    assert (found['sentinel_jobs{state="queued"}'], found['sentinel_jobs{state="succeeded"}']) == (1, 1)
    assert found['sentinel_jobs{state="failed"}'] == 0
    assert 90 <= found["sentinel_queue_age_seconds"] < 120


def test_a_job_for_later_does_not_age_the_queue(service):
    service.submit()
    with service.database.transaction() as session:
        session.execute(update(Job).values(not_before=db_now(3600)))
    assert scrape(service)["sentinel_queue_age_seconds"] == 0


def test_what_the_reconciler_ends_is_counted(service):
    service.submit()
    service.submit()
    resources = service.app.state.resources
    before = scrape(service)
    with service.database.transaction() as session:
        leases.claim_next(session, worker="doomed", lease_s=-1)
        session.execute(update(Job).where(Job.state == "queued").values(deadline=db_now(-1)))
    run_round(resources)
    after = scrape(service)
    # The service's own reconciler may have come first; it counts in the same place.
    for name in ("sentinel_lease_expiries_total", "sentinel_missed_deadlines_total"):
        assert after[name] - before[name] == 1
