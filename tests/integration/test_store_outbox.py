"""A message is written with its step, sent by one process at a time, and settled once or tried again for a day.

Time is moved in the database, so no test waits for a clock.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import select, update

from api.store import jobs, leases, outbox, reconciliation, webhooks
from api.store.database import db_now
from api.store.errors import DeliveryNotFound, TooManyWebhooks, WebhookDisabled, WebhookNotFound
from api.store.keys import create_key
from api.store.models import Delivery, DeliveryState, Job, Webhook

ENDS = ["job.cancelled", "job.failed", "job.succeeded"]
EVERYTHING = [*ENDS, "job.paused", "job.running"]
ERROR = {"code": "data_invalid", "fault": "user", "message": "The text is empty.", "next_step": "Check it."}


def write(database, function, *arguments, **options):
    with database.transaction() as session:
        return function(session, *arguments, **options)


def hook(database, tenant="ann", events=EVERYTHING, *, enabled=True):
    options = {"url": "https://hook.example/", "events": events, "description": None, "enabled": enabled}
    return write(database, webhooks.create_webhook, tenant, **options)


def accept(database, tenant="ann"):
    return write(database, jobs.accept_job, tenant=tenant, spec={}, max_attempts=1, name="small").job.id


def claim_job(database, lease_s=60.0):
    return write(database, leases.claim_next, worker="w", lease_s=lease_s)


def deliveries(database, hook):
    with database.reading() as session:
        return list(reversed(outbox.list_deliveries(session, hook, limit=100)))


def delivery(database, hook):
    (only,) = deliveries(database, hook)
    return only


def told(database, hook):
    return [found.message["type"] for found in deliveries(database, hook)]


def claim(database, lease_s=60.0):
    return write(database, outbox.claim_due, lease_s=lease_s)


def tried(status=None):
    at = "2026-01-01T00:00:00+00:00"
    return {"at": at, "status": status, "milliseconds": 5, "error": None if status else "ConnectError: no"}


def settle(database, parcel, status=None, wait_s=0.0):
    return write(database, outbox.settle, parcel, tried(status), wait_s=wait_s)


def change(database, table, **values):
    with database.transaction() as session:
        session.execute(update(table).values(**values))


def test_a_webhook_is_told_of_its_tenant_s_steps_that_it_wants(database):
    all_of_them, ends, others, disabled = (
        hook(database),
        hook(database, events=ENDS),
        hook(database, "bob"),
        hook(database, enabled=False),
    )
    job_id = accept(database)
    job = claim_job(database)
    write(database, jobs.request_pause, "ann", job_id, grace_s=1)
    write(database, leases.release, job, "paused")
    write(database, jobs.request_resume, "ann", job_id)
    write(database, leases.succeed, claim_job(database), {}, [])
    assert told(database, all_of_them) == ["job.running", "job.paused", "job.running", "job.succeeded"]
    assert told(database, ends) == ["job.succeeded"]
    assert told(database, others) == told(database, disabled) == []
    assert {found.state for found in deliveries(database, all_of_them)} == {DeliveryState.PENDING}


def test_every_way_to_an_end_is_told(database):
    mine = hook(database, events=ENDS)
    accept(database)
    write(database, leases.fail, claim_job(database), ERROR, retry=False)
    write(database, jobs.request_cancel, "ann", accept(database), grace_s=0)
    accept(database)
    claim_job(database, lease_s=-1)
    write(database, reconciliation.reconcile, limit=1)
    accept(database)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.state == "queued").values(deadline=db_now(-1)))
    write(database, reconciliation.reconcile, limit=1)
    assert told(database, mine) == ["job.failed", "job.cancelled", "job.failed", "job.failed"]


def test_a_message_says_little_and_when(database):
    mine = hook(database, events=ENDS)
    job_id = accept(database)
    write(database, leases.fail, claim_job(database), ERROR, retry=False)
    message = delivery(database, mine).message
    with database.reading() as session:
        job = jobs.get_job(session, "ann", job_id)
    assert datetime.fromisoformat(message["timestamp"]) == job.updated_at
    assert message["data"] == {
        "id": job_id,
        "name": "small",
        "state": "failed",
        "attempt": 1,
        "error": {"code": "data_invalid", "fault": "user"},
        "links": {"self": f"/v1/jobs/{job_id}"},
    }


def test_a_step_that_is_rolled_back_is_not_told(database):
    mine = hook(database)
    accept(database)

    class Crash(Exception):
        pass

    with suppress(Crash), database.transaction() as session:
        assert leases.claim_next(session, worker="w", lease_s=60) is not None
        assert len(outbox.list_deliveries(session, mine, limit=10)) == 1
        raise Crash
    assert told(database, mine) == []


def test_a_delivery_is_sent_by_one_process_until_its_lease_is_over(database):
    mine = hook(database)
    accept(database)
    claim_job(database)
    first = claim(database, lease_s=-1)
    assert (first.url, first.secrets, first.message["type"]) == (mine.url, (mine.secret,), "job.running")
    second = claim(database)
    assert (second.delivery_id, second.token) == (first.delivery_id, first.token + 1)
    assert claim(database) is None
    with database.reading() as session:
        assert not outbox.anything_due(session)
    assert settle(database, first, 200) is None
    assert delivery(database, mine).tries == []
    assert settle(database, second, 200) == DeliveryState.DELIVERED
    assert claim(database) is None


def test_of_processes_that_claim_at_once_each_gets_another_delivery(database):
    hooks = [hook(database) for _ in range(4)]
    accept(database)
    claim_job(database)
    barrier = Barrier(8)

    def race(_):
        barrier.wait()
        return claim(database)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            parcels = [parcel for parcel in pool.map(race, range(8)) if parcel is not None]
            parcels += iter(lambda: claim(database), None)
            assert len(parcels) == len({parcel.delivery_id for parcel in parcels}) == len(hooks)
            change(database, Delivery, lease_expires_at=None)


def test_one_webhook_is_told_one_thing_at_a_time_and_the_oldest_first(database):
    slow, quick = hook(database), hook(database)
    accept(database)
    write(database, leases.succeed, claim_job(database), {}, [])
    first, second = claim(database), claim(database)
    assert {first.message["type"], second.message["type"]} == {"job.running"}
    assert claim(database) is None
    mine = first if first.delivery_id == deliveries(database, quick)[0].id else second
    settle(database, mine, 204)
    third = claim(database)
    assert third.delivery_id == deliveries(database, quick)[1].id
    assert claim(database) is None
    assert deliveries(database, slow)[1].lease_expires_at is None


def test_what_fails_is_tried_again_ever_later_for_a_day(database):
    mine = hook(database, events=ENDS)
    accept(database)
    write(database, leases.fail, claim_job(database), ERROR, retry=False)
    waits = []
    for _ in range(8):
        state = settle(database, claim(database), 500)
        assert state == DeliveryState.PENDING
        assert claim(database) is None
        with database.reading() as session:
            waits.append((delivery(database, mine).next_try_at - session.scalar(select(db_now()))).total_seconds())
        change(database, Delivery, next_try_at=db_now(-1))
    for wait, expected in zip(waits, [10, 30, 90, 270, 810, 2430, 7290, 21600], strict=True):
        assert 0.8 * expected - 5 < wait <= 1.2 * expected
    change(database, Delivery, give_up_at=db_now(3600))
    assert settle(database, claim(database)) == DeliveryState.EXHAUSTED
    change(database, Delivery, next_try_at=db_now(-1))
    assert claim(database) is None
    found = delivery(database, mine)
    assert [one["status"] for one in found.tries] == [500] * 8 + [None]
    with database.reading() as session:
        assert webhooks.get_webhook(session, "ann", mine.id).enabled


def test_a_receiver_can_ask_for_time(database):
    mine = hook(database)
    accept(database)
    claim_job(database)
    settle(database, claim(database), 429, wait_s=600)
    with database.reading() as session:
        now = session.scalar(select(db_now()))
    assert 590 < (delivery(database, mine).next_try_at - now).total_seconds() <= 600
    change(database, Delivery, next_try_at=db_now(-1))
    settle(database, claim(database), 503, wait_s=10**9)
    assert delivery(database, mine).next_try_at - now < timedelta(hours=6, minutes=1)


def test_gone_disables_a_webhook_and_ends_what_it_was_to_be_told(database):
    mine = hook(database)
    accept(database)
    job = claim_job(database)
    parcel = claim(database)
    write(database, leases.succeed, job, {}, [])
    assert settle(database, parcel, 410) == DeliveryState.EXHAUSTED
    with database.reading() as session:
        now = webhooks.get_webhook(session, "ann", mine.id)
    assert (now.enabled, "410" in now.disabled_reason) == (False, True)
    assert claim(database) is None
    assert [found.state for found in deliveries(database, mine)] == [DeliveryState.EXHAUSTED] * 2
    accept(database)
    claim_job(database)
    assert len(told(database, mine)) == 2


def test_what_its_old_receiver_answers_is_not_held_against_a_webhook_that_leads_elsewhere(database):
    mine = hook(database)
    accept(database)
    claim_job(database)
    parcel = claim(database)
    write(database, webhooks.change_webhook, "ann", mine.id, {"url": "https://new.example/"})
    assert settle(database, parcel, 410) == DeliveryState.PENDING
    with database.reading() as session:
        moved = webhooks.get_webhook(session, "ann", mine.id)
    assert (moved.enabled, moved.disabled_reason, moved.failing_since) == (True, None, None)


def test_a_webhook_that_fails_for_days_is_disabled_and_a_success_starts_anew(database):
    mine = hook(database)

    def fail():
        accept(database)
        claim_job(database)
        return settle(database, claim(database), 500)

    fail()
    change(database, Webhook, failing_since=db_now(-4.9 * 86_400))
    assert fail() == DeliveryState.PENDING
    change(database, Delivery, next_try_at=db_now(-1))
    settle(database, claim(database), 200)
    with database.reading() as session:
        assert webhooks.get_webhook(session, "ann", mine.id).failing_since is None
    settle(database, claim(database), 500)
    change(database, Webhook, failing_since=db_now(-5.1 * 86_400))
    assert fail() == DeliveryState.EXHAUSTED
    with database.reading() as session:
        now = webhooks.get_webhook(session, "ann", mine.id)
    assert (now.enabled, now.disabled_reason[:32]) == (False, "Nothing has been delivered since")
    again = write(database, webhooks.change_webhook, "ann", mine.id, {"enabled": True})
    assert (again.enabled, again.disabled_reason, again.failing_since) == (True, None, None)


def test_a_message_can_be_sent_again(database):
    mine, other = hook(database, events=ENDS), hook(database, events=["job.paused"])
    accept(database)
    write(database, leases.succeed, claim_job(database), {}, [])
    settle(database, claim(database), 200)
    only = delivery(database, mine)
    for wrong in ((other, only.id), (mine, "dlv_0")):
        with pytest.raises(DeliveryNotFound):
            write(database, outbox.redeliver, *wrong)
    assert claim(database) is None
    assert write(database, outbox.redeliver, mine, only.id).state == DeliveryState.PENDING
    parcel = claim(database)
    assert (parcel.delivery_id, parcel.message) == (only.id, only.message)
    # Asked for while it is being sent: nobody else sends it too.
    write(database, outbox.redeliver, mine, only.id)
    assert claim(database) is None
    assert settle(database, parcel, 200) == DeliveryState.DELIVERED
    change(database, Webhook, enabled=False)
    with database.reading() as session:
        mine = webhooks.get_webhook(session, "ann", mine.id)
    with pytest.raises(WebhookDisabled):
        write(database, outbox.redeliver, mine, only.id)
    with pytest.raises(WebhookDisabled):
        write(database, outbox.post_test, mine)


def test_secrets_change_with_an_overlap(database):
    mine = hook(database)
    write(database, outbox.post_test, mine)
    rotated = write(database, webhooks.rotate_secret, "ann", mine.id, overlap_s=60)
    assert claim(database, lease_s=-1).secrets == (rotated.secret, mine.secret)
    change(database, Webhook, old_secret_expires_at=db_now(-1))
    assert claim(database, lease_s=-1).secrets == (rotated.secret,)
    last = write(database, webhooks.rotate_secret, "ann", mine.id, overlap_s=0)
    assert claim(database).secrets == (last.secret,)
    assert len({mine.secret, rotated.secret, last.secret}) == 3


def test_webhooks_are_their_tenant_s_and_not_too_many(database):
    mine = hook(database)
    for function in (webhooks.get_webhook, webhooks.delete_webhook):
        with pytest.raises(WebhookNotFound):
            write(database, function, "bob", mine.id)
    for _ in range(webhooks.LIMIT - 1):
        hook(database)
    with pytest.raises(TooManyWebhooks):
        hook(database)
    hook(database, "bob")
    write(database, webhooks.delete_webhook, "ann", mine.id)
    hook(database)


def test_requests_that_race_make_not_too_many(database):
    with database.transaction() as session:
        create_key(session, "ann", "hers", ["submit"])
    for _ in range(webhooks.LIMIT - 1):
        hook(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            options = {"url": "https://hook.example/", "events": ENDS, "description": None, "enabled": True}
            webhooks.create_webhook(session, "ann", **options)
            another = pool.submit(hook, database)
            time.sleep(0.2)  # for it to count
        with pytest.raises(TooManyWebhooks):
            another.result()


def test_a_webhook_goes_with_its_deliveries_though_one_is_being_sent(database):
    mine = hook(database)
    accept(database)
    claim_job(database)
    parcel = claim(database)
    write(database, webhooks.delete_webhook, "ann", mine.id)
    assert settle(database, parcel, 200) is None
    with database.reading() as session:
        assert session.scalars(select(Delivery)).all() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_webhook_that_is_deleted_meanwhile_fails_no_step_of_a_job(database):
    """The deletion waits for the step, which has written the webhook a message."""
    mine = hook(database)
    accept(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            leases.claim_next(session, worker="w", lease_s=60)
            deletion = pool.submit(write, database, webhooks.delete_webhook, "ann", mine.id)
            with pytest.raises(TimeoutError):
                deletion.result(timeout=0.3)
        deletion.result(timeout=30)
    with database.reading() as session:
        assert session.scalars(select(Job.state)).one() == "running"
        assert session.scalars(select(Delivery)).all() == []


def test_what_is_settled_is_forgotten_after_a_month(database):
    mine = hook(database)
    for _ in range(2):
        accept(database)
        claim_job(database)
    settle(database, claim(database), 200)
    write(database, outbox.forget_old)
    assert len(deliveries(database, mine)) == 2
    change(database, Delivery, next_try_at=db_now(-31 * 86_400))
    write(database, outbox.forget_old)
    assert delivery(database, mine).state == DeliveryState.PENDING
