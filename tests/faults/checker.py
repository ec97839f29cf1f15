"""Reads a job's whole history and says what in it breaks a promise of the service."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.store import files, jobs
from api.store.errors import ObjectMissing
from api.store.models import Artifact, Attempt, Checkpoint, Job, JobEvent, Metric, Outcome
from api.store.states import TRANSITIONS, State, is_terminal
from api.store.storage import Storage
from tests.faults.cheap_runner import chain, weights_of
from tests.faults.users import Wish

# What may end a job here without its owner's doing: attempts that were used up, and a disk that was full.
FAIR_ERRORS = {"worker_lost", "runner_crashed", "publishing_failed", "disk_full"}
PUBLISHED = {"checkpoint/model.safetensors", "metrics.jsonl", "result.json", "runner.log"}
LEFT_BEHIND = {"checkpoint/model.safetensors", "metrics.jsonl"}


@dataclass(frozen=True)
class History:
    """Everything that the database knows of one job."""

    job: Job
    events: Sequence[JobEvent]
    attempts: Sequence[Attempt]
    metrics: Sequence[Metric]
    curve: Sequence[Metric]
    artifacts: Sequence[Artifact]
    adopted_cycle: int  # of its parent, behind which a retry begins

    @classmethod
    def read(cls, session: Session, job: Job) -> "History":
        """In one transaction."""
        of_parent = (Checkpoint.job_id == job.id, Checkpoint.token == 0)
        metrics = session.scalars(select(Metric).where(Metric.job_id == job.id).order_by(Metric.id)).all()
        return cls(
            job=job,
            events=jobs.list_events(session, job.id, limit=100_000),
            attempts=jobs.list_attempts(session, job.id),
            metrics=metrics,
            curve=jobs.list_metrics(session, job.id, name="healing_loss"),
            artifacts=files.list_artifacts(session, job.id),
            adopted_cycle=session.scalar(select(Checkpoint.cycle).where(*of_parent)) or 0,
        )


def violations(session: Session, storage: Storage, wish: Wish) -> Iterator[str]:
    """What is wrong with what became of a wish; nothing if every promise was kept."""
    for kind, ids in (("job", wish.job_ids), ("retry", wish.retry_ids)):
        if len(ids) > 1:
            yield f"{wish.name}: the same request made {len(ids)} different {kind}s"
    stored = session.scalars(select(Job).where(Job.name == wish.name)).all()
    if strangers := {job.id for job in stored} ^ (wish.job_ids | wish.retry_ids):
        yield f"{wish.name}: lost or never promised: {sorted(strangers)}"
    for job in stored:
        for wrong in _wrong(History.read(session, job), storage, wish):
            yield f"{wish.name} {job.id}: {wrong}"


def _wrong(history: History, storage: Storage, wish: Wish) -> Iterator[str]:
    job = history.job
    if not is_terminal(job.state):
        yield f"is still {job.state}, attempt {job.attempt}"
        return
    yield from _wrong_events(history)
    yield from _wrong_tokens(history)
    yield from _wrong_files(history, storage)
    if job.state == State.SUCCEEDED:
        yield from _wrong_result(history, storage, wish)
    elif job.state == State.FAILED:
        yield from _wrong_error(job)
    elif "cancel" not in wish.asked:
        yield "was cancelled, and nobody had asked"


def _wrong_events(history: History) -> Iterator[str]:
    if [event.seq for event in history.events] != list(range(1, history.job.last_seq + 1)):
        yield f"has gaps in its events: {[event.seq for event in history.events]}"
    states = [event.data for event in history.events if event.type == "state"]
    for earlier, later in pairwise(states):
        if later["from"] != earlier["to"] or State(later["to"]) not in TRANSITIONS[State(later["from"])]:
            yield f"went from {earlier['to']} as {later['from']} to {later['to']}"
    ends = [state["to"] for state in states if is_terminal(State(state["to"]))]
    if ends != [history.job.state]:
        yield f"ended as {ends}, and is {history.job.state}"
    if history.events and history.events[-1].data.get("to") != history.job.state:
        yield f"has a {history.events[-1].type} event after its end"


def _wrong_tokens(history: History) -> Iterator[str]:
    job, attempts = history.job, history.attempts
    if [attempt.token for attempt in attempts] != list(range(1, job.lease_token + 1)):
        yield f"has attempts {[attempt.token for attempt in attempts]} for {job.lease_token} claims"
    if unended := [attempt.token for attempt in attempts if attempt.outcome is None]:
        yield f"has ended with attempts that have not: {unended}"
    successes = [attempt.token for attempt in attempts if attempt.outcome == Outcome.SUCCEEDED]
    if successes != ([job.lease_token] if job.state == State.SUCCEEDED else []):
        yield f"is {job.state} with successful attempts {successes}"
    for attempt in attempts:
        if (attempt.error or {}).get("code") == "attempt_broken":
            yield f"has an attempt that ended in what nobody foresaw: {attempt.error['message']}"
    told = Counter((e.token, e.data["name"], e.data["step"]) for e in history.events if e.type == "metric")
    if doubled := [point for point, times in told.items() if times > 1]:
        yield f"tells of the same points twice: {doubled}"
    for name, rows in (("event", history.events), ("metric", history.metrics)):
        tokens = [row.token or 0 for row in rows]
        if tokens != sorted(tokens):
            yield f"has a {name} that an older claim wrote after a newer one: {tokens}"


def _wrong_files(history: History, storage: Storage) -> Iterator[str]:
    tokens = {artifact.token for artifact in history.artifacts}
    if len(tokens) > 1:
        yield f"has published files of {len(tokens)} claims"
    for artifact in history.artifacts:
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in storage.iterate(artifact.storage_key):
                digest.update(chunk)
                size += len(chunk)
        except ObjectMissing:
            yield f"has published {artifact.path}, which is not stored"
            continue
        if (digest.hexdigest(), size) != (artifact.sha256, artifact.bytes):
            yield f"has published {artifact.path}, whose bytes are others"
    paths = {artifact.path for artifact in history.artifacts}
    expected = {State.SUCCEEDED: PUBLISHED}.get(history.job.state, LEFT_BEHIND if history.job.kept_cycle else set())
    if paths != expected:
        yield f"is {history.job.state} behind cycle {history.job.kept_cycle} and has published {sorted(paths)}"


def _wrong_result(history: History, storage: Storage, wish: Wish) -> Iterator[str]:
    """The curve and the files are those of a run that nothing interrupted."""
    points = list(chain(wish.seed, wish.cycles, wish.steps))
    expected = [(point.step, point.cycle, point.loss) for point in points if point.cycle > history.adopted_cycle]
    if [(metric.step, metric.cycle, metric.value) for metric in history.curve] != expected:
        yield "has another curve than an uninterrupted run"
    if history.job.result != {"digest": points[-1].digest}:
        yield f"has the result {history.job.result}, not {points[-1].digest}"
    (weights,) = (a for a in history.artifacts if a.path == "checkpoint/model.safetensors")
    if weights.sha256 != hashlib.sha256(weights_of(points[-1].digest)).hexdigest():
        yield "has published other weights than an uninterrupted run"
    if history.attempts[-1].token != weights.token:
        yield "has published weights of another attempt than the one that succeeded"


def _wrong_error(job: Job) -> Iterator[str]:
    error = job.error or {}
    if missing := {"code", "fault", "message", "next_step", "log_tail"} - error.keys():
        yield f"failed without saying its {', '.join(sorted(missing))}"
    if error.get("code") not in FAIR_ERRORS:
        yield f"failed with {error.get('code')}: {error.get('message')}"
