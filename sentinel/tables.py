"""What people see of a service's replies. Knows replies and rich, nothing of requests."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from sentinel.replies import (
    AuditEntry,
    Delivery,
    Job,
    JobEvent,
    JobSummary,
    Key,
    MetricPoint,
    Strategy,
    Sweep,
    SweepRow,
    SweepVerdict,
    Upload,
    UploadSummary,
    Usage,
    Use,
    Verdict,
    Webhook,
    Worker,
)


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
        "sweep": found.sweep_id,
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


def sweeps(found: Iterable[Sweep]) -> Table:
    """A row per sweep."""
    table = _table("id", "name", "points", "jobs", "done", "created")
    for sweep in found:
        words = (escape(sweep.name or ""), str(sweep.points), _counted(sweep.counts), f"{sweep.progress:.0%}")
        table.add_row(sweep.id, *words, _time(sweep.created_at))
    return table


def sweep(found: Sweep) -> Table:
    """A row per thing that is known of a sweep."""
    grid = (found.document or {}).get("grid", {})
    rows = {
        "id": found.id,
        "name": found.name,
        "jobs": _counted(found.counts),
        "done": f"{found.progress:.0%}",
        "at once": found.max_parallel,
        "used": f"{found.used_slot_s:,.0f} slot-seconds",
        "created": _time(found.created_at),
        **{path: ", ".join(map(_value, values)) for path, values in grid.items()},
        "results": f"sentinel sweep table {found.id}",
    }
    return _rows(rows)


def sweep_points(verdict: SweepVerdict) -> Table:
    """A row per point of a valid sweep."""
    table = _table(*(verdict.points[0] if verdict.points else ()))
    for point in verdict.points:
        table.add_row(*(escape(_value(value)) for value in point.values()))
    return table


def sweep_rows(found: Sequence[SweepRow], front: Sequence[SweepRow] = ()) -> Table:
    """A row per point, with a star before those on the Pareto front."""
    on_front = {row.jobs for row in front}
    paths = list(found[0].point) if found else []
    table = _table("", *map(escape, paths), "state", "loss", "KL", "parameters", "latency, ms", "jobs")
    for row in found:
        values = [escape(_value(row.point[path])) for path in paths]
        states = ", ".join(dict.fromkeys(job.state for job in row.jobs))
        jobs = " ".join(job.id for job in row.jobs)
        table.add_row("*" if row.jobs in on_front else "", *values, states, *_measured(row), jobs)
    return table


def _measured(row: SweepRow) -> Sequence[str]:
    """Loss, divergence, size, and latency, each with its spread over seeds if there is one."""
    forms = {"loss": ".4f", "kl_to_dense": ".4f", "parameters": ",.0f", "latency_ms": ".2f"}
    if row.result is None:
        return [""] * len(forms)
    cells = [format(getattr(row.result, name), form) for name, form in forms.items()]
    if row.spread is None:
        return cells
    spread = [format(getattr(row.spread, name), form) for name, form in forms.items()]
    return [f"{cell} ±{by}" for cell, by in zip(cells, spread, strict=True)]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _value(value: object) -> str:
    """As a spec says it."""
    return value if isinstance(value, str) else json.dumps(value)


def uploads(found: Iterable[UploadSummary]) -> Table:
    """A row per upload."""
    table = _table("id", "kind", "name", "state", "size", "created", "refused because")
    for upload in found:
        why = upload.error.message if upload.error else ""
        words = (upload.kind, escape(upload.name or ""), upload.state, _size(upload.bytes), _time(upload.created_at))
        table.add_row(upload.id, *words, escape(why))
    return table


def upload(found: Upload) -> Table:
    """A row per file of an upload."""
    table = _table("file", "size", "sha256", "there")
    for file in found.files:
        table.add_row(escape(file.path), _size(file.bytes), file.sha256, "yes" if file.stored else "no")
    return table


def keys(found: Iterable[Key]) -> Table:
    """A row per key."""
    table = _table("id", "name", "may", "created", "ends", "revoked")
    for key in found:
        times = (_time(key.created_at), _time(key.expires_at), _time(key.revoked_at))
        table.add_row(key.id, escape(key.name), ", ".join(key.scopes), *times)
    return table


def key(found: Key) -> Table:
    """A row per thing that is known of a key."""
    rows = {
        "id": found.id,
        "name": found.name,
        "may": ", ".join(found.scopes),
        "rate": found.rate_limit,
        **{name.replace("_", " "): limit for name, limit in found.quotas},
        "created": _time(found.created_at),
        "ends": _time(found.expires_at) or "never",
        "revoked": _time(found.revoked_at),
    }
    return _rows(rows)


def usage(found: Usage) -> Table:
    """A row per key, and one for all of them."""
    table = _table("key", "name", "queued", "running", "slot-seconds", "files", "jobs")
    for use in found.keys:
        table.add_row(use.key_id or "none", escape(use.name or ""), *_used(use))
    table.add_row("all", f"{_time(found.start)} to {_time(found.end)}", *_used(found.total))
    return table


def _used(use: Use) -> Sequence[str]:
    numbers = (str(use.queued_jobs), str(use.running_jobs), f"{use.gpu_seconds:,.1f}", _size(use.stored_bytes))
    return (*numbers, _counted(use.jobs))


def audit(found: Iterable[AuditEntry]) -> Table:
    """A row per entry."""
    table = _table("when", "action", "of", "with key", "from", "details")
    for entry in found:
        details = json.dumps(entry.details) if entry.details else ""
        words = (entry.action, entry.target, entry.key_id or "operator", entry.client or "", details)
        table.add_row(_time(entry.created_at), *map(escape, words))
    return table


def webhooks(found: Iterable[Webhook]) -> Table:
    """A row per webhook."""
    table = _table("id", "url", "told of", "enabled", "fails since")
    for hook in found:
        enabled = "yes" if hook.enabled else "no"
        table.add_row(hook.id, escape(hook.url), ", ".join(hook.events), enabled, _time(hook.failing_since))
    return table


def webhook(found: Webhook) -> Table:
    """A row per thing that is known of a webhook."""
    rows = {
        "id": found.id,
        "url": found.url,
        "description": found.description,
        "told of": ", ".join(found.events),
        "enabled": "yes" if found.enabled else "no",
        "disabled because": found.disabled_reason,
        "fails since": _time(found.failing_since),
        "old secret until": _time(found.old_secret_expires_at),
        "created": _time(found.created_at),
    }
    return _rows(rows)


def deliveries(found: Iterable[Delivery]) -> Table:
    """A row per message."""
    table = _table("id", "message", "about", "state", "tries", "last answer", "next try", "created")
    for delivery in found:
        message = delivery.message
        last = delivery.tries[-1] if delivery.tries else None
        answer = "" if last is None else str(last.status or last.error)
        about = message.get("data", {}).get("id", "")
        words = (str(message.get("type")), about, delivery.state, str(len(delivery.tries)), answer)
        table.add_row(delivery.id, *map(escape, words), _time(delivery.next_try_at), _time(delivery.created_at))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
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


def _size(size: int) -> str:
    return _gigabytes(size) if size >= 1e8 else f"{size / 1e6:,.1f} MB"
