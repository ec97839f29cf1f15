"""Webhooks over HTTP, and a real receiver of what they are told.

The service's own senders look once an hour, so that a test says when something is sent; only one test lets them be.
"""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from api.main import create_app
from api.messenger import run_round
from api.store.database import db_now
from api.store.models import Delivery
from api.webhooks import signing
from tests.receiver import Receiver

ENDS = ["job.succeeded", "job.failed", "job.cancelled"]


@pytest.fixture
def more_settings():
    return {"webhooks_s": 3600, "outbound_allowed_hosts": "127.0.0.1"}


@pytest.fixture
def receiver():
    with Receiver().serving() as running:
        yield running


def register(service, url, *, client=None, **options):
    answer = (client or service.client).post("/v1/webhooks", json={"url": url, "events": ENDS} | options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def send(service):
    run_round(service.app.state.resources)


def make_due(service):
    with service.database.transaction() as session:
        session.execute(update(Delivery).values(next_try_at=db_now(-1)))


def cancelled(service):
    job = service.submit()
    assert service.client.post(f"{job['links']['cancel']}").status_code == 202
    return job


def deliveries(service, hook, **query):
    return service.client.get(hook["links"]["deliveries"], params=query).json()["data"]


def verified(request, *secrets):
    """The message, if each of the secrets proves it."""
    (message,) = {json.dumps(Verifier(secret).verify(request.body, request.headers)) for secret in secrets}
    return json.loads(message)


def outcomes(service):
    lines = [line.split() for line in httpx.get(f"{service.base_url}/metrics").text.splitlines()]
    named = [line for line in lines if line[0].startswith("sentinel_webhook_tries_total")]
    return {line[0].split('"')[1]: float(line[1]) for line in named}


def test_the_signature_is_that_of_the_scheme_s_own_example():
    """From the scheme's reference libraries."""
    body, secret = b'{"test": 2432232314}', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signing.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_job_s_end_is_told_and_signed(service, receiver):
    hook = register(service, receiver.url)
    job = service.submit()
    service.finish(service.claim())
    send(service)
    (request,) = receiver.requests
    message = verified(request, hook["secret"])
    assert (request.path, request.headers["content-type"]) == ("/hook?x=1", "application/json")
    assert (message["type"], message["data"]["id"], message["data"]["state"]) == (
        "job.succeeded",
        job["id"],
        "succeeded",
    )
    shown = service.client.get(message["data"]["links"]["self"]).json()
    assert shown["state"] == "succeeded"
    (delivery,) = deliveries(service, hook)
    assert (delivery["id"], delivery["state"], delivery["message"]) == (
        request.headers["webhook-id"],
        "delivered",
        message,
    )
    assert [(one["status"], one["error"]) for one in delivery["tries"]] == [(200, None)]
    assert delivery["next_try_at"] is None
    send(service)
    assert len(receiver.requests) == 1
    assert outcomes(service) == {"delivered": 1}
    forged = request.body.replace(b"succeeded", b"forgotten")
    with pytest.raises(WebhookVerificationError):
        Verifier(hook["secret"]).verify(forged, request.headers)


def test_what_fails_is_sent_again_under_the_same_id_and_can_be_asked_for(service, receiver):
    statuses = iter([500, 302, 404, 200, 500, 200])
    receiver.answer = lambda _: (next(statuses), {})
    hook = register(service, receiver.url)
    cancelled(service)
    for _ in range(3):
        send(service)
        (delivery,) = deliveries(service, hook, state="pending")
        assert datetime.fromisoformat(delivery["next_try_at"]) > datetime.now(UTC)
        make_due(service)
    assert service.client.get(hook["links"]["self"]).json()["failing_since"] is not None
    send(service)
    assert deliveries(service, hook, state="pending") == []
    assert service.client.get(hook["links"]["self"]).json()["failing_since"] is None

    again = service.client.post(f"{hook['links']['deliveries']}/{delivery['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    send(service)
    # It waits now; being asked for, it does not.
    service.client.post(f"{hook['links']['deliveries']}/{delivery['id']}/redeliver")
    send(service)
    (delivery,) = deliveries(service, hook, state="delivered")
    assert [one["status"] for one in delivery["tries"]] == [500, 302, 404, 200, 500, 200]
    assert {request.headers["webhook-id"] for request in receiver.requests} == {delivery["id"]}
    assert {json.dumps(verified(request, hook["secret"])) for request in receiver.requests} == {
        json.dumps(delivery["message"])
    }
    assert outcomes(service) == {"failed": 4, "delivered": 2}


def test_a_receiver_that_is_not_there_is_tried_again(service, receiver):
    gone = register(service, "http://127.0.0.1:1/")
    speaks_no_tls = register(service, f"https://127.0.0.1:{receiver.port}/")
    cancelled(service)
    send(service)
    for hook, error in ((gone, "refused"), (speaks_no_tls, "SSL")):
        (delivery,) = deliveries(service, hook)
        (tried,) = delivery["tries"]
        assert (delivery["state"], tried["status"]) == ("pending", None)
        assert error in tried["error"]
    assert receiver.requests == []


def test_what_no_one_foresaw_is_a_failed_try_and_not_the_same_message_for_ever(service, receiver, monkeypatch, caplog):
    def look_up(_host, _port):
        raise RuntimeError("a bug")

    monkeypatch.setattr(service.app.state.resources.outbound, "_resolve", look_up)
    hook = register(service, receiver.url)
    cancelled(service)
    send(service)
    (delivery,) = deliveries(service, hook)
    assert (delivery["state"], delivery["tries"][0]["status"]) == ("pending", None)
    assert delivery["tries"][0]["error"] == "The service could not send it, and has logged why."
    assert datetime.fromisoformat(delivery["next_try_at"]) > datetime.now(UTC)
    assert "a bug" in caplog.text


def test_a_receiver_can_say_when_to_come_back(service, receiver):
    receiver.answer = lambda _: (429, {"Retry-After": "3000"})
    hook = register(service, receiver.url)
    cancelled(service)
    send(service)
    (delivery,) = deliveries(service, hook)
    waits = datetime.fromisoformat(delivery["next_try_at"]) - datetime.fromisoformat(delivery["tries"][0]["at"])
    assert 3000 <= waits.total_seconds() < 3600


def test_gone_is_taken_at_its_word(service, receiver):
    receiver.answer = lambda _: (410, {})
    hook = register(service, receiver.url)
    job = cancelled(service)
    send(service)
    shown = service.client.get(hook["links"]["self"]).json()
    assert (shown["enabled"], "410" in shown["disabled_reason"]) == (False, True)
    (delivery,) = deliveries(service, hook)
    assert (delivery["state"], delivery["message"]["data"]["id"]) == ("exhausted", job["id"])
    again = f"{hook['links']['deliveries']}/{delivery['id']}/redeliver"
    for path in (hook["links"]["test"], again):
        refused = service.client.post(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    receiver.answer = lambda _: (200, {})
    shown = service.client.patch(hook["links"]["self"], json={"enabled": True}).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (True, None)
    assert service.client.post(again).status_code == 202
    send(service)
    assert [each["state"] for each in deliveries(service, hook)] == ["delivered"]


def test_while_secrets_change_both_sign(service, receiver):
    hook = register(service, receiver.url)
    rotated = service.client.post(hook["links"]["rotate_secret"], params={"overlap_s": 600}).json()
    assert rotated["secret"] != hook["secret"]
    service.client.post(hook["links"]["test"])
    send(service)
    verified(receiver.requests[-1], hook["secret"], rotated["secret"])
    last = service.client.post(hook["links"]["rotate_secret"], params={"overlap_s": 0}).json()
    assert last["old_secret_expires_at"] is None
    service.client.post(hook["links"]["test"])
    send(service)
    assert verified(receiver.requests[-1], last["secret"])["type"] == "webhook.test"
    for old in (hook["secret"], rotated["secret"]):
        with pytest.raises(WebhookVerificationError):
            verified(receiver.requests[-1], old)


def test_secrets_are_shown_once(service, receiver):
    hook = register(service, receiver.url, description="chat")
    assert len(base64.b64decode(hook["secret"].removeprefix("whsec_"))) == 32
    others = [
        service.client.get(hook["links"]["self"]),
        service.client.get("/v1/webhooks"),
        service.client.patch(hook["links"]["self"], json={"description": None}),
        service.client.post(hook["links"]["test"]),
        service.client.get(hook["links"]["deliveries"]),
    ]
    assert all(answer.is_success and "whsec_" not in answer.text for answer in others)


def test_a_webhook_can_be_changed_and_deleted(service, receiver):
    hook = register(service, receiver.url, events=["job.running", "job.running"], enabled=False)
    here = hook["links"]["self"]
    assert hook["events"] == ["job.running"]
    changed = service.client.patch(here, json={"events": ENDS, "url": "https://hook.example/"}).json()
    assert (changed["events"], changed["url"], changed["enabled"]) == (sorted(ENDS), "https://hook.example/", False)
    assert service.client.get("/v1/webhooks").json()["data"] == [changed]
    cancelled(service)
    assert deliveries(service, hook) == []
    assert service.client.delete(here).status_code == 204
    assert service.client.get(here).status_code == 404
    assert service.client.get("/v1/webhooks").json()["data"] == []


def test_somebody_else_s_webhook_is_not_found(service, receiver):
    hook = register(service, receiver.url)
    delivery = service.client.post(hook["links"]["test"]).json()
    with service.client_of("bob") as bob, service.client_of("ann", "read") as reader:
        for method, path in (
            ("GET", hook["links"]["self"]),
            ("PATCH", hook["links"]["self"]),
            ("DELETE", hook["links"]["self"]),
            ("POST", hook["links"]["rotate_secret"]),
            ("POST", hook["links"]["test"]),
            ("GET", hook["links"]["deliveries"]),
            ("POST", f"{hook['links']['deliveries']}/{delivery['id']}/redeliver"),
        ):
            answer = bob.request(method, path, json={} if method == "PATCH" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found"), (method, path)
            if method != "GET":
                assert reader.request(method, path).status_code == 403
        mine = register(service, receiver.url, client=bob)
        path = f"{mine['links']['deliveries']}/{delivery['id']}/redeliver"
        assert bob.post(path).json()["code"] == "delivery_not_found"
        assert [each["id"] for each in bob.get("/v1/webhooks").json()["data"]] == [mine["id"]]
    assert service.client.get(hook["links"]["self"]).status_code == 200


MISTAKES = [
    ({"url": "https://169.254.169.254/latest/meta-data"}, "/url"),
    ({"url": "https://2130706434/"}, "/url"),
    ({"url": "https://localhost/"}, "/url"),
    ({"url": "https://xn--/"}, "/url"),
    ({"url": "http://hook.example/"}, "/url"),
    ({"url": "https://me:secret@hook.example/"}, "/url"),
    ({"url": "https://hook.example/" + "x" * 2000}, "/url"),
    ({"events": []}, "/events"),
    ({"events": ["job.exploded"]}, "/events/0"),
    ({"secret": "whsec_mine"}, "/secret"),
    ({"description": "\x00"}, "/description"),
    ({"enabled": None}, "/enabled"),
]


def test_mistakes_are_named_where_they_are(service, receiver):
    hook = register(service, receiver.url)
    for changes, pointer in MISTAKES:
        for answer in (
            service.client.post("/v1/webhooks", json={"url": "https://hook.example/", "events": ENDS} | changes),
            service.client.patch(hook["links"]["self"], json=changes),
        ):
            assert answer.status_code == 422, changes
            assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
            assert "secret@" not in answer.text
    assert [each["url"] for each in service.client.get("/v1/webhooks").json()["data"]] == [receiver.url]


def test_there_is_a_limit_to_webhooks(service, receiver):
    for _ in range(20):
        register(service, receiver.url)
    refused = service.client.post("/v1/webhooks", json={"url": receiver.url, "events": ENDS})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_webhooks")


def test_pages_of_deliveries_do_not_shift(service, receiver):
    hook = register(service, receiver.url)
    sent = [service.client.post(hook["links"]["test"]).json()["id"] for _ in range(5)]
    first = service.client.get(hook["links"]["deliveries"], params={"limit": 2}).json()
    service.client.post(hook["links"]["test"])
    query = {"limit": 2, "cursor": first["next_cursor"]}
    second = service.client.get(hook["links"]["deliveries"], params=query).json()
    last = service.client.get(hook["links"]["deliveries"], params=query | {"cursor": second["next_cursor"]}).json()
    found = [delivery["id"] for page in (first, second, last) for delivery in page["data"]]
    assert found == sent[::-1]
    assert (first["has_more"], last["has_more"], last["next_cursor"]) == (True, False, None)
    job_cursor = base64.urlsafe_b64encode(b"job_1").decode()
    wrong = service.client.get(hook["links"]["deliveries"], params={"cursor": job_cursor})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "cursor_invalid")


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_processes_do_not_send_the_same_at_once(service, receiver, settings):
    """Two applications share a database; the receiver holds the first request until both have had their chance."""
    asked, go_on = Event(), Event()

    def hold(_):
        asked.set()
        assert go_on.wait(30)
        return 200, {}

    receiver.answer = hold
    hook = register(service, receiver.url)
    cancelled(service)
    other = create_app(settings).state.resources
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, service)
        assert asked.wait(30)
        run_round(other)
        go_on.set()
        first.result(timeout=30)
    run_round(other)
    other.database.close()
    assert len(receiver.requests) == 1
    (delivery,) = deliveries(service, hook)
    assert (delivery["state"], len(delivery["tries"])) == ("delivered", 1)


def test_a_slow_webhook_holds_up_no_other_and_no_request(service, receiver):
    asked, go_on = Event(), Event()

    def hold(_):
        asked.set()
        assert go_on.wait(30)
        return 200, {}

    receiver.answer = hold
    slow = register(service, receiver.url)
    cancelled(service)
    cancelled(service)
    with Receiver().serving() as quick, ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, service)
        assert asked.wait(30)
        hook = register(service, quick.url)
        cancelled(service)
        send(service)
        assert len(quick.requests) == 1
        assert [each["state"] for each in deliveries(service, hook)] == ["delivered"]
        assert [each["state"] for each in deliveries(service, slow)] == ["pending"] * 3
        go_on.set()
        first.result(timeout=30)
    assert [each["state"] for each in deliveries(service, slow)] == ["delivered"] * 3


class TestByItself:
    @pytest.fixture
    def more_settings(self):
        return {"webhooks_s": 0.05, "outbound_allowed_hosts": "127.0.0.1"}

    def test_the_service_sends_what_is_due(self, service, receiver):
        came = Event()
        receiver.answer = lambda _: (came.set(), (200, {}))[1]
        hook = register(service, receiver.url)
        cancelled(service)
        assert came.wait(30)
        verified(receiver.requests[0], hook["secret"])


def test_the_description_says_what_is_sent(service):
    document = httpx.get(f"{service.base_url}/openapi.json").json()
    sent = {
        name: path["post"]["requestBody"]["content"]["application/json"] for name, path in document["webhooks"].items()
    }
    assert sent["job"]["schema"]["$ref"].endswith("/JobMessage")
    assert set(document["components"]["schemas"]["EventType"]["enum"]) > set(ENDS)
