"""`sentinel submit | watch | pause | resume | cancel | retry | download`: the commands that make a service do things.

Thin over `sentinel.client`; what only looks is in `reading_commands`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sentinel.access import STAYING_S, AsJson, Key, Url, connect
from sentinel.arguments import (
    SPEC_ARGUMENTS,
    Deadline,
    Grace,
    IdempotencyKey,
    JobId,
    NotBefore,
    Priority,
    SpecArguments,
    moment,
)
from sentinel.display import ProgressDisplay, TransferDisplay, result_tables
from sentinel.outcomes import ExitCode, output
from sentinel.spec_flags import spec_from_arguments

if TYPE_CHECKING:  # httpx comes with it, which `--help` can do without
    from sentinel.client import SentinelClient
    from sentinel.replies import Job


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.command(**SPEC_ARGUMENTS)(submit)
    for command in (watch, pause, resume, cancel, retry, download):
        app.command()(command)


def submit(
    arguments: SpecArguments = None,
    *,
    priority: Priority = 0,
    not_before: NotBefore = None,
    deadline: Deadline = None,
    idempotency_key: IdempotencyKey = None,
    follow_job: Annotated[bool, typer.Option("--watch", help="Stay and show the job's progress.")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Submit an experiment as a job."""
    spec = spec_from_arguments(arguments or [])
    with connect(url, api_key, patience_s=STAYING_S if follow_job else None) as client:
        job = client.submit(
            spec,
            priority=priority,
            not_before=moment(not_before),
            deadline=moment(deadline),
            idempotency_key=idempotency_key,
        )
        if follow_job:
            _watch(client, job.id, as_json=as_json)
        else:
            print(job.model_dump_json() if as_json else job.id)


def watch(job_id: JobId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show a job's progress until it has ended, then its before and after."""
    with connect(url, api_key, patience_s=STAYING_S) as client:
        _watch(client, job_id, as_json=as_json)


def pause(
    job_id: JobId, *, grace_s: Grace = None, url: Url = None, api_key: Key = None, as_json: AsJson = False
) -> None:
    """Put a job aside, at the end of the cycle that it is in if that comes soon."""
    with connect(url, api_key) as client:
        _show_state(client.pause(job_id, grace_s=grace_s), as_json=as_json)


def resume(job_id: JobId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Let a paused job go on behind its last finished cycle."""
    with connect(url, api_key) as client:
        _show_state(client.resume(job_id), as_json=as_json)


def cancel(
    job_id: JobId, *, grace_s: Grace = None, url: Url = None, api_key: Key = None, as_json: AsJson = False
) -> None:
    """Ask a job to stop, at the end of the cycle that it is in if that comes soon."""
    with connect(url, api_key) as client:
        _show_state(client.cancel(job_id, grace_s=grace_s), as_json=as_json)


def retry(
    job_id: JobId,
    *,
    from_start: Annotated[bool, typer.Option("--from-start", help="Not behind the last cycle that was kept.")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run an ended job again, as a new job."""
    with connect(url, api_key) as client:
        job = client.retry(job_id, from_start=from_start)
    print(job.model_dump_json() if as_json else job.id)


def download(
    job_id: JobId,
    folder: Annotated[Path | None, typer.Argument(help="New folder; by default named like the job.")] = None,
    *,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Download an ended job's checkpoint, of one without success as its last cycle left it; every file is verified.

    A download that was cut off goes on where it stopped when it is asked for again.
    """
    staying = connect(url, api_key, patience_s=STAYING_S)
    with staying as client, TransferDisplay(Console(stderr=True), "downloading") as display:
        made = client.download_checkpoint(job_id, folder or Path(job_id), progress=display.tell)
    print(json.dumps({"job_id": job_id, "folder": str(made)}) if as_json else made)


def _show_state(job: "Job", *, as_json: bool) -> None:
    print(job.model_dump_json() if as_json else job.state)


def _watch(client: "SentinelClient", job_id: str, *, as_json: bool) -> None:
    from sentinel.follow import follow

    console = Console(stderr=True)
    try:
        with ProgressDisplay(console) as display:
            job = follow(client, job_id, display)
    except KeyboardInterrupt:
        console.print(f"The job goes on; `sentinel watch {job_id}` shows it again.", highlight=False, soft_wrap=True)
        raise
    _show_end(job, as_json=as_json)
    if job.state != "succeeded":
        raise typer.Exit(ExitCode.JOB_DID_NOT_SUCCEED)


def _show_end(job: "Job", *, as_json: bool) -> None:
    if as_json:
        print(job.model_dump_json())
        return
    console = output()
    if job.result is not None:
        console.print(result_tables(job.result))
    if job.error is not None:
        console.print(f"{job.error.code}: {job.error.message}\n{job.error.next_step}", markup=False, highlight=False)
    console.print(f"{job.id} {job.state}", highlight=False)
