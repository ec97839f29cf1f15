"""`sentinel keys … | usage | audit`, in this process, against a real API."""

import pytest

from sentinel.outcomes import ExitCode
from sentinel.replies import Key, NewKey


@pytest.fixture
def boss(service, environment):
    """Commands run with a key that may do everything."""
    key = service.client_of("ann", "read", "submit", "admin").headers["Authorization"].removeprefix("Bearer ")
    environment.setenv("SENTINEL_API_KEY", key)
    return environment


def test_a_key_is_made_used_changed_and_revoked(command, answer, boss, service):
    made = command(
        "keys", "make", "for ben", "--scope", "read", "--scope", "submit", "--days", "3", "--rate", "100/minute",
        "--max-queued-jobs", "2",
    )  # fmt: skip
    secret = made.out.splitlines()[-1]
    key_id = secret.split("_")[1]
    assert command("list", "--api-key", secret).code == 0

    key = Key.model_validate(answer("keys", "show", key_id))
    assert (key.name, set(key.scopes), key.rate_limit) == ("for ben", {"read", "submit"}, "100/minute")
    assert (key.quotas.max_queued_jobs, key.quotas.max_running_jobs) == (2, None)
    assert (key.expires_at - key.created_at).days in (2, 3)

    changed = command("keys", "change", key_id, "--max-queued-jobs", "none", "--max-running-jobs", "1", "--name", "ben")
    known = dict(line.split(maxsplit=1) for line in changed.out.splitlines())
    assert known["name"].strip() == "ben"
    key = Key.model_validate(answer("keys", "change", key_id, "--never-ends", "--rate", "none"))
    assert (key.rate_limit, key.expires_at, key.quotas.max_queued_jobs, key.quotas.max_running_jobs) == (
        None,
        None,
        None,
        1,
    )

    assert "revoked" in command("keys", "revoke", key_id).out
    assert command("list", "--api-key", secret).code == ExitCode.NO_ACCESS
    listed = answer("keys", "list")["data"]
    assert (listed[0]["id"], listed[0]["revoked_at"] is None) == (key_id, False)
    assert command("keys", "list").out.splitlines()[1].split()[:2] == [key_id, "ben"]


def test_with_json_the_secret_is_in_the_object(answer, boss):
    made = NewKey.model_validate(answer("keys", "make", "robot", "--scope", "read"))
    assert made.key.startswith(f"sntl_{made.id}_")


def test_what_a_key_may_not_be_is_refused(command, answer, boss, service):
    assert answer("keys", "make", "x", "--scope", "fly")["error"]["errors"][0]["pointer"] == "/scopes/0"
    wrong = command("keys", "make", "x", "--scope", "read", "--max-queued-jobs", "many")
    assert (wrong.code, wrong.err.splitlines()[0]) == (ExitCode.WRONG_INPUT, "'many' is no number.")
    boss.setenv("SENTINEL_API_KEY", service.client.headers["Authorization"].removeprefix("Bearer "))
    for manage in (("keys", "list"), ("usage",), ("audit",)):
        assert command(*manage).code == ExitCode.NO_ACCESS


def test_usage_and_audit_tell_of_what_was_done(command, answer, boss, service):
    service.submit()
    key_id = answer("keys", "make", "robot", "--scope", "read")["id"]
    shown = command("usage").out.splitlines()
    assert shown[-1].split()[0] == "all"
    assert shown[-1].endswith("1 queued")
    report = answer("usage", "--from", "2020-01-01", "--to", "2020-02-01")
    assert (report["from"][:4], report["total"]["queued_jobs"]) == ("2020" if report["from"] > "2020" else "2019", 1)
    assert [use["key_id"] for use in answer("usage", "--key", key_id)["keys"]] == [key_id]

    made, submitted = answer("audit", "--limit", "2")["data"]
    assert (made["action"], made["target"], submitted["action"]) == ("key.make", key_id, "job.submit")
    assert [entry["target"] for entry in answer("audit", "--action", "key.make")["data"]] == [key_id]
    assert answer("audit", "--key", key_id) == {"data": []}
    assert "robot" in command("audit").out.splitlines()[1]
