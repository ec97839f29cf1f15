"""`sentinel webhooks …`, in this process, against a real API and a real receiver."""

import pytest
from standardwebhooks import Webhook as Verifier

from api.messenger import run_round
from sentinel.outcomes import ExitCode
from tests.receiver import Receiver


@pytest.fixture
def more_settings():
    """A test says when something is sent."""
    return {"webhooks_s": 3600, "outbound_allowed_hosts": "127.0.0.1"}


@pytest.fixture
def receiver():
    with Receiver().serving() as running:
        yield running


def test_a_webhook_is_made_tested_and_told(command, answer, service, receiver):
    made = command("webhooks", "make", receiver.url, "--description", "chat").out.splitlines()
    secret = made[-1]
    (hook,) = answer("webhooks", "list")["data"]
    assert (hook["events"], "secret" in hook) == (["job.cancelled", "job.failed", "job.succeeded"], False)
    sent = answer("webhooks", "test", hook["id"])
    assert (sent["state"], sent["message"]["type"]) == ("pending", "webhook.test")
    run_round(service.app.state.resources)
    (message,) = receiver.requests
    Verifier(secret).verify(message.body, message.headers)
    (row,) = command("webhooks", "deliveries", hook["id"]).out.splitlines()[1:]
    assert row.split()[:6] == [sent["id"], "webhook.test", hook["id"], "delivered", "1", "200"]
    assert answer("webhooks", "deliveries", hook["id"], "--state", "exhausted") == {"data": []}

    assert answer("webhooks", "redeliver", hook["id"], sent["id"])["state"] == "pending"
    run_round(service.app.state.resources)
    assert len(receiver.requests) == 2


def test_a_webhook_is_changed_rotated_and_deleted(command, answer, receiver):
    made = answer("webhooks", "make", receiver.url, "--event", "job.running", "--disabled")
    assert (made["enabled"], made["events"]) == (False, ["job.running"])
    hook_id = made["id"]
    refused = answer("webhooks", "test", hook_id)["error"]
    assert refused["code"] == "webhook_disabled"
    changed = command("webhooks", "change", hook_id, "--enable", "--event", "job.paused", "--description", "mine")
    known = dict(line.split(maxsplit=1) for line in changed.out.splitlines())
    assert (known["enabled"].strip(), known["description"].strip()) == ("yes", "mine")
    shown = answer("webhooks", "show", hook_id)
    assert (shown["url"], shown["events"], shown["enabled"]) == (receiver.url, ["job.paused"], True)
    rotated = answer("webhooks", "rotate", hook_id, "--overlap", "60")
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_expires_at"] is not None
    assert command("webhooks", "delete", hook_id).out.strip() == f"deleted {hook_id}"
    assert command("webhooks", "show", hook_id).code == ExitCode.NOT_FOUND


def test_where_a_webhook_may_not_lead_is_told(answer):
    error = answer("webhooks", "make", "http://10.0.0.1/")["error"]
    assert (error["status"], error["next_step"] != "") == (422, True)
