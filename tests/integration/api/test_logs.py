"""Logs: of a running attempt as far as they are known, of an ended one whole, of an expired one no more."""

import time

import pytest

from api.store import leases
from api.store.storage import Storage, log_key

END = "X-Log-End"


def prints(service, claim, text):
    """What the worker of a claim copies to the storage."""
    source = service.folder / "runner.log"
    source.write_text(text)
    Storage(service.settings.storage_uri).put_log(source, log_key(claim.job_id, claim.token))


def logs(service, claim, **query):
    return service.client.get(f"/v1/jobs/{claim.job_id}/logs", params=query)


def test_a_growing_log_is_read_bit_by_bit(service):
    job = service.submit()
    assert service.client.get(job["links"]["logs"]).text == ""
    claim = service.claim()
    assert (logs(service, claim).text, logs(service, claim).headers[END]) == ("", "0")
    prints(service, claim, "one\n")
    first = logs(service, claim)
    assert (first.text, first.headers["Content-Type"]) == ("one\n", "text/plain; charset=utf-8")
    prints(service, claim, "one\ntwö\n")
    second = logs(service, claim, after=first.headers[END])
    assert (second.text, second.headers[END]) == ("twö\n", "9")
    assert logs(service, claim, after=second.headers[END]).text == ""
    assert logs(service, claim, after=2**53 - 1).text == ""


def test_the_last_lines_are_enough(service):
    service.submit()
    claim = service.claim()
    prints(service, claim, "".join(f"{number}\n" for number in range(300_000)))
    assert logs(service, claim, tail=2).text == "299998\n299999\n"
    assert logs(service, claim, tail=0).text == ""
    size = int(logs(service, claim, tail=1).headers[END])
    assert logs(service, claim, tail=5, after=size - 7).text == "299999\n"


def test_each_attempt_has_a_log_of_its_own(service):
    service.submit()
    claims = []
    for text in ("first\n", "second\n"):
        claims.append(service.claim())
        prints(service, claims[-1], text)
        with service.database.transaction() as session:
            leases.release(session, claims[-1], "drain")
    assert [logs(service, claims[0], token=claim.token).text for claim in claims] == ["first\n", "second\n"]
    assert logs(service, claims[0]).text == "second\n"
    unknown = logs(service, claims[0], token=9)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "attempt_not_found")


def test_of_an_attempt_that_ended_before_anything_was_stored_there_is_no_log(service):
    service.submit()
    claim = service.claim()
    with service.database.transaction() as session:
        leases.release(session, claim, "drain")
    answer = logs(service, claim)
    assert (answer.status_code, answer.json()["code"]) == (404, "log_not_stored")
    service.finish(service.claim())
    assert logs(service, claim).json()["code"] == "log_not_stored"


@pytest.mark.parametrize("more_settings", [{"retention_days": 1e-9}])
def test_a_log_that_is_not_kept_is_gone(service):
    service.submit()
    claim = service.claim()
    service.finish(claim)
    time.sleep(0.05)
    assert (logs(service, claim).status_code, logs(service, claim).json()["code"]) == (410, "artifact_expired")


@pytest.mark.parametrize("query", [{"tail": -1}, {"tail": 10_001}, {"after": -1}, {"after": 2**53}, {"token": 0}])
def test_where_to_read_is_checked(service, query):
    service.submit()
    answer = logs(service, service.claim(), **query)
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/query/{name}" for name in query]
