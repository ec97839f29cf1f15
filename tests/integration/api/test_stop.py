"""A server process that is asked to stop while clients wait."""

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from api.store.keys import create_key


@pytest.fixture
def server(database, database_url, tmp_path, free_tcp_port):
    """A server process; yields it with a client of it."""
    with database.transaction() as session:
        _, key = create_key(session, "ann", "test", ["read", "submit"])
    environment = os.environ | {
        "SENTINEL_HOME": str(tmp_path),
        "SENTINEL_DATABASE_URL": database_url,
        "SENTINEL_REDIS_URL": f"redis+socket://{tmp_path}/none.sock",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:app", "--port", str(free_tcp_port)]
    with (
        httpx.Client(
            base_url=f"http://127.0.0.1:{free_tcp_port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as client,
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process,
    ):
        while not alive(client):
            assert process.poll() is None
            time.sleep(0.05)
        yield process, client
        process.kill()


def alive(client):
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_gets_an_answer_and_the_process_ends(server, spec, number):
    process, client = server
    submitted = client.post("/v1/jobs", json=spec)
    url = submitted.json()["links"]["self"]
    answers = []

    def poll():
        answer = client.get(url, params={"wait": 30}, headers={"If-None-Match": submitted.headers["ETag"]})
        answers.append(answer.status_code)

    def read():
        with client.stream("GET", f"{url}/events", headers={"Accept": "text/event-stream"}) as answer:
            reading.set()
            answers.append(answer.read().count(b"id: "))

    reading = threading.Event()
    waiting = [threading.Thread(target=poll), threading.Thread(target=read)]
    for thread in waiting:
        thread.start()
    assert reading.wait(10)
    time.sleep(0.5)  # both requests wait on the server now; nothing tells so from outside
    process.send_signal(number)
    log = process.communicate(timeout=10)[1]
    for thread in waiting:
        thread.join(10)
    assert sorted(answers) == [1, 304]
    assert "Traceback" not in log
    assert "ERROR" not in log
