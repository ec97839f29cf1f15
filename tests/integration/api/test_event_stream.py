"""Events: JSON pages, and a live stream that misses nothing and knows when to end."""

import json
import threading

import pytest

from api.jobs import watching
from sentinel.events import MessageLogged

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def parse(lines):
    """Server-sent events as (id, event, data); comments are skipped."""
    fields = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}
        elif name:
            fields[name] = value


def follow(client, job_id, **headers):
    with client.stream(
        "GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream", **headers}
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield from parse(answer.iter_lines())


def say(service, claim, first, last):
    service.record(claim, *(MessageLogged(text=str(number)) for number in range(first, last)))


def test_pages_continue_where_the_last_ended(service):
    job = service.submit()
    say(service, service.claim(), 0, 3)
    first = service.client.get(f"/v1/jobs/{job['id']}/events", params={"limit": 3}).json()
    rest = service.client.get(f"/v1/jobs/{job['id']}/events", params={"after": first["data"][-1]["seq"]}).json()
    assert [event["seq"] for event in first["data"] + rest["data"]] == [1, 2, 3, 4, 5]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert rest["data"][-1]["data"] == {"level": "info", "text": "2"}


@on_both_databases
def test_a_stream_tells_everything_live_and_ends_with_the_job(service, monkeypatch):
    monkeypatch.setattr(watching, "BATCH", 4)
    job = service.submit()
    claim = service.claim()
    say(service, claim, 0, 10)
    stream = follow(service.client, job["id"])
    begun = [next(stream) for _ in range(12)]

    def work():
        for number in range(10, 30):
            say(service, claim, number, number + 1)
        service.finish(claim, {})

    worker = threading.Thread(target=work)
    worker.start()
    *rest, end = list(stream)
    worker.join()
    assert [seq for seq, _, _ in begun + rest] == [str(seq) for seq in range(1, 34)]
    assert [data["data"]["text"] for _, event, data in begun + rest if event == "message"] == list(map(str, range(30)))
    assert all(data["seq"] == int(seq) for seq, _, data in begun + rest)
    assert end == (None, "end", {"state": "succeeded"})


def test_a_reader_that_was_cut_off_goes_on_where_it_was(service):
    job = service.submit()
    claim = service.claim()
    say(service, claim, 0, 5)
    stream = follow(service.client, job["id"])
    last = [next(stream) for _ in range(3)][-1][0]
    stream.close()
    service.finish(claim, {})
    *rest, end = list(follow(service.client, job["id"], **{"Last-Event-ID": last}))
    assert [seq for seq, _, _ in rest] == ["4", "5", "6", "7", "8"]
    assert end[1] == "end"


def test_a_stream_that_waits_sends_comments(service, monkeypatch):
    monkeypatch.setattr("sse_starlette.EventSourceResponse.DEFAULT_PING_INTERVAL", 0.05)
    job = service.submit()
    with service.client.stream(
        "GET", f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}
    ) as answer:
        assert any(line.startswith(": ping") for line in answer.iter_lines())


@pytest.mark.parametrize("header", ["-1", "x", str(2**40)])
def test_a_last_event_id_that_is_none_is_refused(service, header):
    job = service.submit()
    answer = service.client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": header}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/header/last-event-id")


def test_a_server_that_stops_ends_streams_properly(service):
    job = service.submit()
    stream = follow(service.client, job["id"])
    assert next(stream)[0] == "1"
    service.app.state.resources.stopping.set()
    assert list(stream) == []
