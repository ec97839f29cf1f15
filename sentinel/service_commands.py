"""`sentinel submit | watch | list | pause | resume | cancel | retry | download`: the commands that talk to a service.

Thin over `sentinel.client`. Finds the service and the key in options, environment, or the folder
that the embedded service keeps.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sentinel.client import SentinelClient
from sentinel.display import ProgressDisplay, result_table
from sentinel.errors import Fault, SentinelError
from sentinel.follow import follow
from sentinel.replies import Job
from sentinel.spec_flags import SPEC_ARGUMENTS_SETTINGS, SpecArguments, spec_from_arguments

# Where `make serve` keeps the key that it generates.
EMBEDDED_KEY_FILE = Path(".sentinel") / "api_key"
EXIT_JOB_DID_NOT_SUCCEED = 3

Url = Annotated[str, typer.Option(envvar="SENTINEL_URL", help="Address of the service.")]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="SENTINEL_API_KEY", help=f"API key; by default that of {EMBEDDED_KEY_FILE}.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of text.")]
Grace = Annotated[
    float | None,
    typer.Option("--grace", help="Seconds that a running job gets to finish its cycle.", show_default="the service's"),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, `job_…`.")]
DEFAULT_URL = "http://127.0.0.1:8000"


class KeyMissing(SentinelError):
    """No API key was given or found."""

    code = "key_missing"
    fault = Fault.USER
    next_step = "Pass --api-key or set SENTINEL_API_KEY; `make serve` prints where it keeps one."


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.command(context_settings=SPEC_ARGUMENTS_SETTINGS)(submit)
    app.command()(watch)
    app.command("list")(list_jobs)
    app.command()(pause)
    app.command()(resume)
    app.command()(cancel)
    app.command()(retry)
    app.command()(download)


def submit(
    arguments: SpecArguments = None,
    *,
    priority: Annotated[int, typer.Option(help="Higher runs first, -1000 to 1000.")] = 0,
    not_before: Annotated[
        datetime | None, typer.Option(help="When the job may start, in local time.", show_default="at once")
    ] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option(help="When the job fails if it runs on, in local time.", show_default="never"),
    ] = None,
    follow_job: Annotated[bool, typer.Option("--watch", help="Stay and show the job's progress.")] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Submit an experiment as a job."""
    spec = spec_from_arguments(arguments or [])
    with _client(url, api_key) as client:
        job = client.submit(
            spec,
            priority=priority,
            not_before=not_before and not_before.astimezone(),
            deadline=deadline and deadline.astimezone(),
        )
        if follow_job:
            _watch(client, job.id, as_json=as_json)
        else:
            print(job.model_dump_json() if as_json else job.id)


def watch(job_id: JobId, *, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show a job's progress until it has ended, then its before and after."""
    with _client(url, api_key) as client:
        _watch(client, job_id, as_json=as_json)


def list_jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    table = Table(box=None)
    for heading in ("id", "name", "state", "phase", "done", "created"):
        table.add_column(heading, no_wrap=heading == "id")
    with _client(url, api_key) as client:
        for _, job in zip(range(limit), client.list(state=state, name=name), strict=False):
            if as_json:
                print(job.model_dump_json())
            created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
            table.add_row(job.id, job.name or "", job.state, job.phase or "", f"{job.progress:.0%}", created)
    if not as_json:
        Console().print(table)


def pause(
    job_id: JobId, *, grace_s: Grace = None, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False
) -> None:
    """Put a job aside, at the end of the cycle that it is in if that comes soon."""
    with _client(url, api_key) as client:
        _show_state(client.pause(job_id, grace_s=grace_s), as_json=as_json)


def resume(job_id: JobId, *, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False) -> None:
    """Let a paused job go on behind its last finished cycle."""
    with _client(url, api_key) as client:
        _show_state(client.resume(job_id), as_json=as_json)


def cancel(
    job_id: JobId, *, grace_s: Grace = None, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False
) -> None:
    """Ask a job to stop, at the end of the cycle that it is in if that comes soon."""
    with _client(url, api_key) as client:
        _show_state(client.cancel(job_id, grace_s=grace_s), as_json=as_json)


def retry(
    job_id: JobId,
    *,
    from_start: Annotated[bool, typer.Option("--from-start", help="Not behind the last cycle that was kept.")] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run an ended job again, as a new job."""
    with _client(url, api_key) as client:
        job = client.retry(job_id, from_start=from_start)
    print(job.model_dump_json() if as_json else job.id)


def _show_state(job: Job, *, as_json: bool) -> None:
    print(job.model_dump_json() if as_json else job.state)


def download(
    job_id: JobId,
    folder: Annotated[Path | None, typer.Argument(help="New folder; by default named like the job.")] = None,
    *,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Download an ended job's checkpoint, of one without success as its last cycle left it; every file is verified."""
    with _client(url, api_key) as client:
        print(client.download_checkpoint(job_id, folder or Path(job_id)))


def _client(url: str, api_key: str | None) -> SentinelClient:
    if api_key is None and EMBEDDED_KEY_FILE.is_file():
        api_key = EMBEDDED_KEY_FILE.read_text(encoding="utf-8").strip()
    if api_key is None:
        raise KeyMissing("There is no API key.")
    return SentinelClient(url, api_key)


def _watch(client: SentinelClient, job_id: str, *, as_json: bool) -> None:
    with ProgressDisplay(Console(stderr=True)) as display:
        job = follow(client, job_id, display)
    _show_end(job, as_json=as_json)
    if job.state != "succeeded":
        sys.exit(EXIT_JOB_DID_NOT_SUCCEED)


def _show_end(job: Job, *, as_json: bool) -> None:
    if as_json:
        print(job.model_dump_json())
        return
    console = Console()
    if job.result is not None:
        console.print(result_table(job.result))
    if job.error is not None:
        console.print(f"{job.error.code}: {job.error.message}\n{job.error.next_step}", markup=False, highlight=False)
    console.print(f"{job.id} {job.state}", highlight=False)
