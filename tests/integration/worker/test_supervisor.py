"""Attempts from claim to end: a real database, real storage, a real child process per attempt."""

import errno
import hashlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from sqlalchemy import update

from api.settings import Settings
from api.store import files, jobs, uploads
from api.store.database import create_database, db_now
from api.store.models import Job
from api.store.placement import Placement, living_workers
from api.store.states import State, is_terminal
from api.store.storage import Storage, log_key
from sentinel.models.checking.fresh_process import reload_elsewhere
from sentinel.spec import parse_spec
from worker.devices import Host, Memory
from worker.keeper import LeaseKeeper
from worker.metrics import WorkerMetrics
from worker.shelf import Shelf
from worker.supervisor import Supervisor

ENDLESS = 1_000_000  # healing steps that no test waits for
DEADLINE_S = 90


class Bench:
    """One installation and its worker, seen from a test."""

    def __init__(self, settings, supervisor, tiny_spec):
        self.settings = settings
        self.supervisor = supervisor
        self.database = create_database(settings.database_url)
        self._tiny_spec = tiny_spec

    def submit(self, **options):
        spec = parse_spec(self._tiny_spec(**options)).model_dump(mode="json")
        with self.database.transaction() as session:
            return jobs.accept_job(session, tenant="t", spec=spec, max_attempts=3).job.id

    def work(self):
        """Let the worker look into the queue; returns the thread that does."""
        thread = threading.Thread(target=self.run_queue)
        thread.start()
        return thread

    def run_queue(self):
        """Let the worker look into the queue, and wait: it may have looked by itself a moment before."""
        self.supervisor.run_queue()
        deadline = time.monotonic() + DEADLINE_S
        while any(slot.busy for slot in self.supervisor.slots):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def read(self, query, *arguments):
        with self.database.reading() as session:
            return query(session, *arguments)

    def job(self, job_id):
        return self.read(lambda session: session.get(Job, job_id))

    def events(self, job_id):
        with self.database.reading() as session:
            return jobs.list_events(session, job_id, limit=1000)

    def attempts(self, job_id):
        return self.read(jobs.list_attempts, job_id)

    def artifacts(self, job_id):
        return self.read(files.list_artifacts, job_id)

    def says(self, job_id, text):
        return any(text in event.data.get("text", "") for event in self.events(job_id))

    def wait_for_event(self, job_id, kind, **data):
        deadline = time.monotonic() + DEADLINE_S
        while True:
            job = self.job(job_id)  # before its events: what it ends with is among them
            if any(event.type == kind and data.items() <= event.data.items() for event in self.events(job_id)):
                return
            assert not is_terminal(job.state), job.error
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def finish(self, job_id, thread):
        """Run the job to its end without waiting for its back-offs."""
        thread.join(DEADLINE_S)
        while not is_terminal(self.job(job_id).state):
            with self.database.transaction() as session:
                session.execute(update(Job).where(Job.id == job_id).values(not_before=db_now()))
            self.run_queue()

    def busy_runner(self):
        """The child that runs an experiment, not the warm one."""
        (metrics,) = self.supervisor._scratch._folder.glob("runner-*/output/metrics.jsonl")
        return next(child for child in psutil.Process().children(recursive=True) if Path(child.cwd()) == metrics.parent)


def fork_servers():
    """Of this process, those of services that other tests started included."""
    return {child for child in psutil.Process().children(recursive=True) if "worker.fork_server" in child.cmdline()}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, migrated_sqlite):
    folder = tmp_path_factory.mktemp("worker")
    database_url = f"sqlite:///{shutil.copy(migrated_sqlite, folder)}"
    folders = {"home": folder / "home", "cache": folder / "cache", "model_roots": [folder / "texts"]}
    return Settings(**folders, database_url=database_url, heartbeat_s=0.2, lease_s=30)


@pytest.fixture(scope="module")
def bench(settings, tiny_spec):
    before, others = threading.active_count(), fork_servers()
    with Supervisor(settings, WorkerMetrics()) as supervisor:
        bench = Bench(settings, supervisor, tiny_spec)
        yield bench
    bench.database.close()
    assert threading.active_count() == before
    assert list((settings.home / "scratch").iterdir()) == []
    assert fork_servers() <= others


def healing(bench, **lengths):
    """A job whose healing has begun, and the thread of its worker."""
    job_id = bench.submit(**lengths)
    thread = bench.work()
    bench.wait_for_event(job_id, "metric", name="healing_loss")
    return job_id, thread


def test_an_experiment_that_the_user_must_mend_fails_at_once_and_says_so(bench):
    job_id = bench.submit(model={"source": "path", "path": "/somewhere/else"})
    bench.run_queue()
    job = bench.job(job_id)
    assert (job.state, job.error["code"], job.error["fault"]) == (State.FAILED, "path_not_allowed", "user")
    assert set(job.error) == {"code", "fault", "message", "next_step", "log_tail"}
    assert len(bench.attempts(job_id)) == 1
    assert bench.artifacts(job_id) == []
    log = b"".join(Storage(bench.settings.storage_uri).iterate(log_key(job_id, 1)))
    assert b"PathNotAllowed" in log


def test_a_cancel_without_grace_stops_the_child_and_publishes_nothing(bench, wait_until_gone):
    job_id, thread = healing(bench, steps=ENDLESS)
    child = bench.busy_runner()
    with bench.database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=0)
    began = time.monotonic()
    while bench.job(job_id).state != State.CANCELLED:
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.02)
    thread.join(DEADLINE_S)  # the next runner warms up meanwhile
    assert bench.attempts(job_id)[0].outcome == "cancelled"
    assert bench.artifacts(job_id) == []
    assert wait_until_gone([child]) == []


def test_a_cancelled_job_ends_with_its_cycle_and_leaves_a_model_that_loads(bench, tmp_path):
    job_id, thread = healing(bench, cycles=2, steps=20)
    with bench.database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=60)
    thread.join(DEADLINE_S)
    job = bench.job(job_id)
    assert (job.state, job.kept_cycle, job.result) == (State.CANCELLED, 1, None)
    storage = Storage(bench.settings.storage_uri)
    for file in bench.artifacts(job_id):
        storage.download(file.storage_key, tmp_path / "job" / file.path, file.sha256)
    found = reload_elsewhere(tmp_path, torch.arange(4)[None], new_tokens=1, caches=["dynamic"])["job"]
    assert found.log == []
    assert found.computed["logits"].isfinite().all()
    assert (tmp_path / "job" / "metrics.jsonl").stat().st_size > 0


def test_a_retry_goes_on_behind_what_a_cancelled_job_kept(bench):
    parent = bench.submit(cycles=2, steps=30)
    thread = bench.work()
    bench.wait_for_event(parent, "checkpoint", cycle=1)
    with bench.database.transaction() as session:
        jobs.request_cancel(session, "t", parent, grace_s=0)
    thread.join(DEADLINE_S)
    assert bench.job(parent).state == State.CANCELLED
    with bench.database.transaction() as session:
        job_id = jobs.retry_job(session, "t", parent, from_start=False, max_attempts=3).job.id
    bench.run_queue()
    assert (bench.job(job_id).state, bench.job(job_id).parent_id) == (State.SUCCEEDED, parent)
    assert bench.says(job_id, "Resumed after cycle 1")
    assert not bench.says(parent, "Resumed")


def test_tokens_are_kept_in_the_workers_folder(bench, settings):
    (text,) = settings.model_roots
    text.mkdir()
    (text / "stories.txt").write_text("\n\n".join(f"One day a dog saw {n} cats. " * 20 for n in range(40)))
    data = {"source": "path", "train": str(text / "stories.txt"), "sequence_length": 64}
    job_id = bench.submit(data=data)
    bench.run_queue()
    assert bench.job(job_id).state is State.SUCCEEDED
    (kept,) = (settings.cache / "tokens").iterdir()
    assert kept.suffix == ".safetensors"


def states(bench, job_id):
    return [event.data["to"] for event in bench.events(job_id) if event.type == "state"]


def test_a_pause_waits_for_the_cycle_and_loses_nothing(bench, wait_until_gone):
    job_id, thread = healing(bench, cycles=2, steps=20)
    child = bench.busy_runner()
    with bench.database.transaction() as session:
        jobs.request_pause(session, "t", job_id, grace_s=30)
    thread.join(DEADLINE_S)
    assert wait_until_gone([child]) == []
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.phase) == (State.PAUSED, 0, None)
    assert [event.data["cycle"] for event in bench.events(job_id) if event.type == "checkpoint"] == [1]

    bench.run_queue()
    assert bench.job(job_id).state == State.PAUSED
    with bench.database.transaction() as session:
        jobs.request_resume(session, "t", job_id)
    bench.run_queue()
    assert states(bench, job_id) == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]
    assert bench.says(job_id, "Resumed after cycle 1")


def test_a_cycle_that_takes_too_long_for_a_pause_is_given_up(bench):
    job_id, thread = healing(bench, steps=ENDLESS)
    with bench.database.transaction() as session:
        jobs.request_pause(session, "t", job_id, grace_s=0.5)
    thread.join(DEADLINE_S)
    assert bench.job(job_id).state == State.PAUSED
    with bench.database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=30)


def test_a_cancel_of_a_job_that_is_to_be_paused_has_its_own_grace(bench):
    job_id, thread = healing(bench, steps=ENDLESS)
    with bench.database.transaction() as session:
        jobs.request_pause(session, "t", job_id, grace_s=60)
    time.sleep(1.2)  # longer than the grace of the cancel
    with bench.database.transaction() as session:
        jobs.request_cancel(session, "t", job_id, grace_s=1)
    asked = time.monotonic()
    thread.join(DEADLINE_S)
    assert bench.job(job_id).state == State.CANCELLED
    assert time.monotonic() - asked >= 1


def test_an_attempt_that_takes_too_long_is_stopped(bench):
    job_id = bench.submit(steps=ENDLESS, limits={"max_runtime_s": 2})
    bench.run_queue()
    job = bench.job(job_id)
    assert (job.state, job.error["code"], job.error["fault"]) == (State.FAILED, "runtime_exceeded", "user")


def test_what_attempts_did_is_counted(bench):
    registry = bench.supervisor._metrics.registry
    before = registry.get_sample_value("sentinel_attempts_total", {"outcome": "succeeded"}) or 0
    job_id = bench.submit()
    bench.run_queue()
    assert bench.job(job_id).state == State.SUCCEEDED
    assert registry.get_sample_value("sentinel_attempts_total", {"outcome": "succeeded"}) == before + 1
    assert registry.get_sample_value("sentinel_busy_slots") == 0
    assert registry.get_sample_value("sentinel_claim_wait_seconds_count") >= 1
    assert registry.get_sample_value("sentinel_phase_seconds_sum", {"phase": "healing"}) > 0
    assert registry.get_sample_value("sentinel_phase_seconds_count", {"phase": "publishing"}) >= 1


def test_a_worker_looks_for_work_that_nobody_rang_for(bench):
    job_id = bench.submit()
    bench.wait_for_event(job_id, "state", to="succeeded")
    deadline = time.monotonic() + DEADLINE_S
    while (worker := bench.read(living_workers, 30)[0]).slots[0]["busy"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (slot,) = worker.slots
    assert worker.id == bench.attempts(job_id)[0].worker
    assert 0 < slot["free_bytes"] <= slot["total_bytes"]


def test_a_job_that_turns_out_too_large_is_handed_back_uncharged(bench):
    prune = {"target": {"sparsity": 0.25}, "calibration_sequences": 10**6}
    job_id = bench.submit(prune=prune, data={"source": "builtin", "sequence_length": 32768})
    bench.wait_for_event(job_id, "state", to="queued", reason="does not fit here")
    bench.run_queue()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.error) == (State.QUEUED, 0, None)
    assert job.needs_bytes > 10**13
    assert [attempt.outcome for attempt in bench.attempts(job_id)] == ["released"]
    with bench.database.transaction() as session:
        assert "the largest device of a living worker has" in Placement(session, silent_s=30).reason(job)
        jobs.request_cancel(session, "t", job_id, grace_s=0)


def test_jobs_whose_needs_nobody_knew_do_not_share_what_one_of_them_takes(bench, settings, tiny_spec, monkeypatch):
    with_known = bench.submit()
    bench.run_queue()
    needs_bytes = bench.job(with_known).needs_bytes
    monkeypatch.setattr(Host, "memory", lambda _: Memory(needs_bytes * 3 // 2, needs_bytes * 3 // 2))
    own = settings.model_copy(update={"slots": 2, "heartbeat_s": 0.2})
    bench.supervisor.slots[0].take()  # these are for the other worker
    try:
        with Supervisor(own, WorkerMetrics()) as supervisor:
            both = [bench.submit(steps=ENDLESS) for _ in range(2)]
            deadline = time.monotonic() + DEADLINE_S
            while sorted(bench.job(job_id).state for job_id in both) != ["queued", "running"] or not all(
                bench.job(job_id).needs_bytes for job_id in both
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert sorted(slot.needs_bytes for slot in supervisor.slots) == [0, needs_bytes]
            with bench.database.transaction() as session:
                for job_id in both:
                    jobs.request_cancel(session, "t", job_id, grace_s=0)
    finally:
        bench.supervisor.slots[0].give_back()


def test_a_deadline_ends_a_running_job(bench):
    job_id, thread = healing(bench, steps=ENDLESS)
    with bench.database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(deadline=db_now()))
    thread.join(DEADLINE_S)
    job = bench.job(job_id)
    assert (job.state, job.error["code"], job.attempt) == (State.FAILED, "deadline_exceeded", 1)


def test_results_that_cannot_be_stored_are_tried_again(bench):
    job_id = bench.submit()
    storage, elsewhere = bench.settings.home / "storage", bench.settings.home / "elsewhere"
    storage.rename(elsewhere)
    storage.write_text("not a folder")
    thread = bench.work()
    bench.wait_for_event(job_id, "state", **{"from": "running", "to": "queued"})
    storage.unlink()
    elsewhere.rename(storage)
    bench.finish(job_id, thread)
    assert bench.job(job_id).state == State.SUCCEEDED
    assert bench.attempts(job_id)[0].error["code"] == "publishing_failed"


@pytest.mark.parametrize(("part", "step"), [(Shelf, "store_state"), (LeaseKeeper, "__enter__")])
def test_what_nobody_foresaw_is_told_and_tried_again_at_once(bench, monkeypatch, part, step):
    def break_once(*_):
        monkeypatch.undo()
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(part, step, break_once)
    job_id = bench.submit()
    bench.finish(job_id, bench.work())
    assert bench.job(job_id).state == State.SUCCEEDED
    first, second = bench.attempts(job_id)
    assert (first.outcome, first.error["code"], first.error["fault"]) == ("failed", "attempt_broken", "service")
    assert "ZeroDivisionError: nobody foresaw this" in first.error["message"]
    assert (second.started_at - first.finished_at).total_seconds() < bench.settings.lease_s


def test_a_disk_that_is_full_while_a_state_is_fetched_is_said_and_not_tried_again(bench, monkeypatch):
    job_id = bench.submit(cycles=2, steps=30)
    thread = bench.work()
    bench.wait_for_event(job_id, "checkpoint", cycle=1)

    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Shelf, "fetch", fill)
    bench.busy_runner().kill()
    bench.finish(job_id, thread)
    job = bench.job(job_id)
    assert (job.state, job.error["code"], job.error["fault"]) == (State.FAILED, "disk_full", "resource")
    assert len(bench.attempts(job_id)) == 2


def test_a_worker_without_a_next_runner_finishes_what_it_has_and_leaves_the_rest_to_others(bench, monkeypatch):
    (slot,) = bench.supervisor.slots
    assert slot.wait_ready(threading.Event())
    with monkeypatch.context() as full:
        full.setattr(slot, "_new_folder", (bench.settings.home / "no/space").mkdir)
        first, second = bench.submit(), bench.submit()
        bench.wait_for_event(first, "state", to="succeeded")
        time.sleep(5 * bench.settings.heartbeat_s)  # several looks of the patrol
        assert bench.attempts(second) == []
    bench.wait_for_event(second, "state", to="succeeded")
    assert [len(bench.attempts(job_id)) for job_id in (first, second)] == [1, 1]


def test_a_look_that_fails_is_not_the_last(bench, monkeypatch):
    def break_once(*_):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("worker.supervisor.report_of", break_once)
    job_id = bench.submit()
    bench.wait_for_event(job_id, "state", to="succeeded")


def test_a_state_that_the_storage_damaged_is_not_used(bench):
    job_id = bench.submit(cycles=2, steps=30)
    thread = bench.work()
    bench.wait_for_event(job_id, "checkpoint", cycle=1)
    bench.busy_runner().kill()
    bench.wait_for_event(job_id, "state", **{"from": "running", "to": "queued"})
    for file in (bench.settings.home / "storage/jobs" / job_id).rglob("attempts/*/*"):
        file.write_bytes(b"damaged")
    bench.finish(job_id, thread)
    assert bench.job(job_id).state == State.SUCCEEDED
    error = bench.attempts(job_id)[0].error
    assert error["code"] == "runner_crashed"
    assert "SIGKILL" in error["message"]
    assert bench.says(job_id, "starts from the beginning")
    assert not bench.says(job_id, "Resumed after")


FAST_RUNNER = """
import sys
from pathlib import Path
from sentinel.events import CheckpointSaved, Finished, MetricRecorded

def emit(event):
    print(event.model_dump_json(), flush=True)

print("ready", flush=True)
sys.stdin.readline()
for step in (250, 500, 750):
    for earlier in range(step - 250, step):
        emit(MetricRecorded(name="healing_loss", value=1.0, step=earlier, cycle=1))
    (state := Path(f"state/cycle-0000-step-{step:08d}")).mkdir(parents=True)
    (state / "weights").write_text(str(step))
    emit(CheckpointSaved(cycle=0, step=step, directory=str(state)))
emit(Finished(result={}))
"""


def test_of_states_that_come_faster_than_they_can_be_stored_the_newest_is(bench, monkeypatch):
    def start(streams, folder, environment):
        stdin, stdout, stderr = streams
        command = [sys.executable, "-P", "-c", FAST_RUNNER]
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=folder, env=environment, start_new_session=True
        )

    def store_slowly(shelf, directory, store=Shelf.store_state):
        time.sleep(0.5)
        return store(shelf, directory)

    (slot,) = bench.supervisor.slots
    while not slot.take():
        time.sleep(0.02)
    slot.close()
    with monkeypatch.context() as fast:
        fast.setattr(slot, "_start", start)
        fast.setattr(Shelf, "store_state", store_slowly)
        slot.give_back()
        job_id = bench.submit()
        bench.wait_for_event(job_id, "state", to="succeeded")
        bench.run_queue()
    slot.close()
    stored = [event.data["step"] for event in bench.events(job_id) if event.type == "checkpoint"]
    assert stored[-1] == 750
    assert len(stored) < 3


def test_an_upload_that_the_storage_damaged_ends_the_job_before_it_runs(bench):
    content = b"Once upon a time."
    (file := bench.settings.home / "stories.txt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    declaration = uploads.Declaration(
        kind="text", name=None, files=[uploads.DeclaredFile(file.name, len(content), digest)]
    )
    with bench.database.transaction() as session:
        options = {"limit": 10**9, "request_hash": "", "idempotency_key": None}
        upload_id = uploads.declare(session, "t", declaration, **options).upload.id
        stored = Storage(bench.settings.storage_uri).put_file(file, uploads.upload_prefix(upload_id))
        uploads.record_file(session, "t", upload_id, 0, stored.key)
        uploads.close(session, "t", upload_id, error=None)
    (bench.settings.home / "storage" / stored.key).write_bytes(b"damaged")
    job_id = bench.submit(data={"source": "upload", "train": upload_id, "sequence_length": 64})
    bench.finish(job_id, bench.work())
    job = bench.job(job_id)
    assert (job.state, job.error["code"], job.attempt) == (State.FAILED, "object_damaged", 3)
    assert "phase" not in {event.type for event in bench.events(job_id)}


def test_a_draining_worker_gives_its_job_back_uncharged_and_soon(bench):
    job_id, thread = healing(bench, steps=ENDLESS)
    bench.supervisor.drain()  # nothing runs on this worker any more: the last test
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    job = bench.job(job_id)
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    assert bench.attempts(job_id)[0].outcome == "released"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_on_postgresql_succeeds(database_url, tiny_spec, tmp_path):
    settings = Settings(home=tmp_path / "home", database_url=database_url, heartbeat_s=0.2, lease_s=30)
    with Supervisor(settings, WorkerMetrics()) as supervisor:
        bench = Bench(settings, supervisor, tiny_spec)
        job_id = bench.submit()
        bench.run_queue()
    assert bench.job(job_id).state == State.SUCCEEDED
    assert {artifact.kind for artifact in bench.artifacts(job_id)} >= {"checkpoint", "result", "metrics", "log"}
    bench.database.close()
