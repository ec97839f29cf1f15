"""Both clients against a service that behaves badly on purpose; the well-behaved one is in tests/acceptance."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from inspect import iscoroutinefunction
from types import SimpleNamespace

import pytest

from sentinel.client import SentinelClient
from sentinel.errors import SpecInvalid
from sentinel.events import MessageLogged, Progressed
from sentinel.follow import follow
from sentinel.replies import Job
from sentinel.service_calls import ServiceCalls
from sentinel.transport import AnswerNotUnderstood, ServiceRefused, ServiceUnreachable
from tests.scripted_service import JOB, event, hang_up, refusal, reply, stream


def test_a_dropped_connection_and_a_busy_service_are_tried_again_with_one_idempotency_key(server, client):
    busy = reply({}, status=503, headers=[("Retry-After", "0")])
    server.script = [hang_up, busy, reply(JOB, status=201)]
    assert client.submit({"prune": {}}).id == "job_1"
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in server.asked}) == 1
    assert all(headers["Authorization"] == "Bearer sntl_key" for _, _, headers, _ in server.asked)
    assert [json.loads(body) for *_, body in server.asked] == [{"prune": {}}] * 3


def test_patience_ends_before_a_pause_that_the_service_asks_for(server, client):
    server.script = [refusal(503, "unready", "Its database rests.", headers=[("Retry-After", "60")])]
    with pytest.raises(ServiceUnreachable, match="Its database rests"):
        client.get("job_1")
    assert len(server.asked) == 1


def test_a_refusal_carries_the_problem_and_every_mistake(server, client):
    mistake = {"pointer": "/prune", "code": "missing", "message": "Field required"}
    detail = "The spec has 1 mistake(s)."
    server.script = [refusal(422, "spec_invalid", detail, next_step="Correct it.", errors=[mistake])]
    with pytest.raises(ServiceRefused, match="/prune: Field required") as refused:
        client.submit({})
    assert refused.value.problem.code == "spec_invalid"
    assert refused.value.instance_next_step == "Correct it."


def test_a_date_to_come_again_at_is_waited_for(server, client):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    for nonsense in (past, "soon", "Sat, 01 Jan 2000 00:00:00"):
        server.script += [reply({}, status=429, headers=[("Retry-After", nonsense)])]
    server.script += [reply({}, status=429, headers=[("Retry-After", later)])]
    with pytest.raises(ServiceRefused):
        client.get("job_1")
    assert len(server.asked) == 4


@pytest.mark.parametrize("value", [float("nan"), datetime.now(UTC), {1: 2}])
@pytest.mark.parametrize("call", ["submit", "validate", "submit_sweep", "validate_sweep"])
def test_what_no_json_text_has_is_not_sent(server, client, call, value):
    with pytest.raises(SpecInvalid, match="cannot be sent"):
        getattr(client, call)({"prune": {"target": {"sparsity": value}}, "grid": ("a", None, True)})
    assert not server.asked


def test_a_quota_that_stays_used_up_is_a_refusal(server, client):
    detail, next_step = "The key has had its hours of this month.", "Wait for the next month."
    later = [("Retry-After", "86400")]
    server.script = [refusal(429, "quota_exceeded", detail, next_step=next_step, headers=later)]
    with pytest.raises(ServiceRefused, match="its hours of this month") as refused:
        client.submit({})
    assert refused.value.problem.code == "quota_exceeded"
    assert refused.value.instance_next_step == "Wait for the next month."
    assert len(server.asked) == 1


def test_something_that_is_no_sentinel_service_is_named_as_such(server, client):
    server.script = [reply(b"<html>not found</html>", status=404, media_type="text/html")]
    with pytest.raises(ServiceRefused, match="without a problem document"):
        client.get("job_1")


@pytest.mark.parametrize("body", [b"<html>", b'{"id": "job_1"}', b"[]"])
def test_an_answer_of_another_form_is_named_as_such(server, client, body):
    server.script = [reply(body)]
    with pytest.raises(AnswerNotUnderstood, match="/v1/jobs/job_1 is no Job"):
        client.get("job_1")


def test_a_broken_event_stream_goes_on_after_the_last_event(server, client):
    end = 'event: end\r\ndata: {"state": "succeeded"}\r\n\r\n'
    half = event(3)[:40]
    server.script = [stream(event(1) + event(2) + half), hang_up, stream(event(3) + end)]
    assert [seen.seq for seen in client.watch("job_1")] == [1, 2, 3]
    assert [headers["Last-Event-ID"] for _, _, headers, _ in server.asked] == ["0", "2", "2"]


def test_a_line_separator_in_a_text_parts_no_event(server, client):
    data = {
        "seq": 1,
        "type": "message",
        "data": {"text": "one\u2028two\x85"},
        "token": 1,
        "created_at": "2030-01-01T00:00:00Z",
    }
    lines = f"id: 1\nevent: message\ndata: {json.dumps(data, ensure_ascii=False)}\n\nevent: end\ndata: {{}}\n\n"
    server.script = [stream(lines)]
    assert [seen.data for seen in client.watch("job_1")] == [data["data"]]


def test_patience_counts_from_the_trouble_and_not_from_the_last_event(server):
    def rest_and_break(handler):
        stream(event(1))(handler)
        handler.wfile.flush()
        time.sleep(0.6)

    end = "event: end\ndata: {}\n\n"
    server.script = [rest_and_break, stream(end)]
    with SentinelClient(f"http://127.0.0.1:{server.server_port}", "sntl_key", patience_s=0.4) as client:
        assert [seen.seq for seen in client.watch("job_1")] == [1]


def test_watching_can_be_left(server, client):
    server.script = [stream(event(1) + event(2))]
    watching = client.watch("job_1")
    assert next(watching).seq == 1
    watching.close()
    assert list(watching) == []


def test_lists_are_fetched_page_by_page(server, client):
    pages = [{"data": [JOB], "has_more": True, "next_cursor": "c"}, {"data": [JOB], "has_more": False}]
    server.script = [reply(page) for page in pages]
    assert [job.id for job in client.list(state="succeeded")] == ["job_1", "job_1"]
    assert [path for _, path, *_ in server.asked] == [
        "/v1/jobs?state=succeeded",
        "/v1/jobs?state=succeeded&cursor=c",
    ]


def test_waiting_polls_until_the_job_has_ended(server, client):
    running = JOB | {"state": "running"}
    not_modified = reply(b"", status=304, headers=[("ETag", '"2"')])
    tagged = [reply(running, headers=[("ETag", '"2"')]), not_modified, reply(JOB, headers=[("ETag", '"3"')])]
    server.script = [reply(running), *tagged]
    assert client.wait("job_1").ended
    assert [headers.get("If-None-Match") for _, _, headers, _ in server.asked] == [None, "", '"2"', '"2"']


def test_history_goes_on_after_the_last_event_of_a_page(server, client):
    first, second = (
        {"seq": n, "type": "message", "data": {}, "token": None, "created_at": "2030-01-01T00:00:00Z"} for n in (7, 8)
    )
    server.script = [reply({"data": [first], "has_more": True}), reply({"data": [second], "has_more": False})]
    assert [seen.seq for seen in client.events("job_1", after=6)] == [7, 8]
    assert [path for _, path, *_ in server.asked] == ["/v1/jobs/job_1/events?after=6", "/v1/jobs/job_1/events?after=7"]


def test_what_a_newer_service_tells_more_ends_no_watching(server, client):
    told = {"seq": 1, "type": "phase", "data": {"phase": "dreaming"}, "token": 1, "created_at": "2030-01-01T00:00:00Z"}
    more = told | {"seq": 2, "type": "message", "data": {"level": "info", "text": "Cut.", "tone": "calm"}}
    server.script = [reply(JOB), reply({"data": [told, more], "has_more": False})]
    heard = []
    follow(client, "job_1", SimpleNamespace(emit=heard.append))
    assert heard == [MessageLogged(text="Cut."), Progressed(fraction=1.0)]


def test_log_lines_are_given_as_they_are(server, client):
    server.script = [reply("größer\n".encode(), media_type="text/plain; charset=utf-8")]
    assert client.logs("job_1", tail=1) == "größer\n"
    assert [path for _, path, *_ in server.asked] == ["/v1/jobs/job_1/logs?tail=1"]


def test_the_blocking_client_blocks_also_where_an_event_loop_runs(server):
    server.script = [reply(JOB), stream(event(1) + "event: end\ndata: {}\n\n")]

    async def use():
        with SentinelClient(f"http://127.0.0.1:{server.server_port}", "sntl_key") as client:
            return client.get("job_1").id, [seen.seq for seen in client.watch("job_1")]

    assert asyncio.run(use()) == ("job_1", [1])


def test_threads_may_share_the_blocking_client(server):
    server.script = [reply(JOB) for _ in range(40)]
    with SentinelClient(f"http://127.0.0.1:{server.server_port}", "sntl_key") as client, ThreadPoolExecutor(8) as pool:
        assert {job.id for job in pool.map(client.get, ["job_1"] * 40)} == {"job_1"}


def test_both_clients_have_the_same_calls():
    rooms = ServiceCalls.mro()[:-1]
    calls = {name: value for room in rooms for name, value in vars(room).items() if not name.startswith("_")}
    blocking = {
        name: value for name, value in vars(SentinelClient).items() if not name.startswith("_") and name != "close"
    }
    assert {name: value.__wrapped__ for name, value in blocking.items()} == calls
    assert not any(iscoroutinefunction(value) for value in blocking.values())


def test_replies_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Job.model_validate(JOB).state = "queued"
