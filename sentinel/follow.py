"""Tells a reporter of a job on a service what it would hear of an experiment in its own process."""

from contextlib import suppress

from pydantic import ValidationError

from sentinel.client import SentinelClient
from sentinel.events import EVENT_ADAPTER, Event, MessageLogged, Progressed, Reporter
from sentinel.replies import Job, JobEvent

SHARED_TYPES = frozenset({"phase", "metric", "message"})


def follow(client: SentinelClient, job_id: str, reporter: Reporter) -> Job:
    """Report a job from its beginning until it has ended; returns the ended job."""
    seen, told = 0, None
    for job in client.changes(job_id):
        if job.queue_reason not in (None, told):
            told = job.queue_reason
            reporter.emit(MessageLogged(text=f"waiting: {told}"))
        for line in client.events(job_id, after=seen):
            seen = line.seq
            event = _event(line)
            if event is not None:
                reporter.emit(event)
        reporter.emit(Progressed(fraction=job.progress))
    return job


def _event(line: JobEvent) -> Event | None:
    """The experiment's event; what only a service has, like changes of state, becomes a message.

    Of a newer service's events what is known here is told, and a phase that is not is passed over.
    """
    if line.type in SHARED_TYPES:
        with suppress(ValidationError):
            return EVENT_ADAPTER.validate_python({"type": line.type, **line.data}, extra="ignore")
    if line.type == "state":
        return MessageLogged(text=f"{line.data['to']}: {line.data['reason']}")
    return None
