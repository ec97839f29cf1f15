"""What people see of a service's replies. Knows replies and rich, nothing of requests."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from sentinel.replies import Job, JobEvent, JobSummary, MetricPoint, Strategy, Verdict, Worker


def jobs(found: Iterable[JobSummary]) -> Table:
    """A row per job."""
    table = _table("id", "name", "state", "phase", "done", "created")
    for job in found:
        created = _time(job.created_at)
        table.add_row(job.id, escape(job.name or ""), job.state, job.phase or "", f"{job.progress:.0%}", created)
    return table


def job(found: Job) -> Table:
    """A row per thing that is known of a job."""
    error = found.error
    rows = {
        "id": found.id,
        "name": found.name,
        "state": " · ".join(part for part in (found.state, found.phase) if part),
        "waits because": found.queue_reason,
        "done": f"{found.progress:.0%}",
        "cycle": found.cycle,
        "kept cycle": found.kept_cycle,
        "attempt": f"{found.attempt} of {found.max_attempts}",
        "retry of": found.parent_id,
        "created": _time(found.created_at),
        "started": _time(found.started_at),
        "finished": _time(found.finished_at),
        "error": error and f"{error.code}: {error.message} {error.next_step}",
        "checkpoint": found.checkpoint_uri and f"sentinel download {found.id}",
    }
    return _rows(rows)


def estimate(verdict: Verdict) -> Table:
    """What a valid spec will take, and what would keep it waiting."""
    known = verdict.estimate
    rows = {
        "parameters": f"{known.parameters:,}" if known else "told once a worker has seen the model",
        "memory": known and _gigabytes(known.memory_bytes),
        "would wait": verdict.queue_reason or "no",
    }
    return _rows(rows)


def event_line(event: JobEvent) -> str:
    """One event in a line."""
    return f"{event.seq:>5} {_time(event.created_at)} {event.type:<10} {_sentence(event)}"


def _sentence(event: JobEvent) -> str:
    data = event.data
    match event.type:
        case "state":
            return f"{data.get('to')}: {data.get('reason')}"
        case "message":
            return str(data.get("text"))
        case "metric":
            return f"{data.get('name')} {data.get('value')}" + (f" (step {data['step']})" if data.get("step") else "")
    return " ".join(f"{name} {value}" for name, value in data.items() if value is not None)


def metrics(series: Mapping[str, Sequence[MetricPoint]]) -> Table:
    """A row per name."""
    table = _table("name", "points", "first", "last", "least", "most")
    for name, points in series.items():
        values = [point.value for point in points]
        numbers = (values[0], values[-1], min(values), max(values))
        table.add_row(escape(name), str(len(values)), *(f"{number:.4f}" for number in numbers))
    return table


def points(series: Mapping[str, Sequence[MetricPoint]]) -> Table:
    """A row per point."""
    table = _table("name", "step", "cycle", "value")
    for name, found in series.items():
        for point in found:
            table.add_row(escape(name), str(point.step), str(point.cycle or ""), f"{point.value:.6g}")
    return table


def workers(found: Iterable[Worker]) -> Table:
    """A row per slot."""
    table = _table("worker", "device", "runs", "free", "of", "busy", "last seen")
    for worker in found:
        for slot in worker.slots:
            memory = (_gigabytes(slot.free_bytes), _gigabytes(slot.total_bytes))
            busy = "yes" if slot.busy else "no"
            table.add_row(worker.id, slot.device, ", ".join(slot.devices), *memory, busy, _time(worker.seen_at))
    return table


def strategies(found: Iterable[Strategy]) -> Table:
    """A row per strategy."""
    table = _table("name", "what it does", "needs", "cost")
    for strategy in found:
        words = (strategy.summary, ", ".join(strategy.needs), strategy.cost)
        table.add_row(strategy.name, *map(escape, words))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    return table


def _rows(rows: Mapping[str, object]) -> Table:
    """A column of names and one of values; those without a value are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(name, escape(str(value)))
    return table


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
