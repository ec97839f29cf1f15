"""`sentinel validate | list | get | events | logs | metrics | workers | strategies`: the commands that only look.

Thin over `sentinel.client`. With `--json` each prints what the service said; lists as `{"data": […]}`.
"""

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from sentinel import tables
from sentinel.access import STAYING_S, AsJson, Key, Url, connect
from sentinel.arguments import SPEC_ARGUMENTS, JobId, Most, SpecArguments
from sentinel.display import result_tables
from sentinel.outcomes import ExitCode, output
from sentinel.showing import show, show_mistakes
from sentinel.spec_flags import document_from_arguments

if TYPE_CHECKING:
    from sentinel.replies import Verdict


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.command(**SPEC_ARGUMENTS)(validate)
    app.command("list")(list_jobs)
    for command in (get, events, logs, metrics, workers, strategies):
        app.command()(command)


def validate(arguments: SpecArguments = None, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Ask the service what is wrong with a spec, or else what it will take; nothing runs."""
    document = document_from_arguments(arguments or [])
    with connect(url, api_key) as client:
        verdict = client.validate(document)
    if as_json:
        print(verdict.model_dump_json())
    else:
        show_verdict(verdict)
    if not verdict.valid:
        raise typer.Exit(ExitCode.WRONG_INPUT)


def show_verdict(verdict: "Verdict") -> None:
    """Say what a service thinks of a spec."""
    if not verdict.valid:
        show_mistakes(verdict.errors)
        return
    console = output()
    console.print("The spec is valid.")
    console.print(tables.estimate(verdict), highlight=False)


def list_jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    limit: Most = 50,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect(url, api_key) as client:
        jobs = list(islice(client.list(state=state, name=name), limit))
    show(jobs, tables.jobs(jobs), as_json=as_json)


def get(job_id: JobId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show one job as it is now."""
    with connect(url, api_key) as client:
        job = client.get(job_id)
    show(job, tables.job(job), as_json=as_json)
    if job.result is not None and not as_json:
        output().print(result_tables(job.result))


def events(
    job_id: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job has ended.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only those behind this number.")] = 0,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's history, an event a line; with --json an object a line."""
    console = output()
    with connect(url, api_key, patience_s=STAYING_S if follow else None) as client:
        for event in client.watch(job_id, after=after) if follow else client.events(job_id, after=after):
            if as_json:
                print(event.model_dump_json(), flush=True)
            else:
                console.print(tables.event_line(event), markup=False, highlight=False)


def logs(
    job_id: JobId,
    *,
    tail: Annotated[int | None, typer.Option(min=1, help="Only so many lines, the last.", show_default="all")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print the log lines of a job's run."""
    with connect(url, api_key) as client:
        text = client.logs(job_id, tail=tail)
    print(json.dumps({"job_id": job_id, "text": text}) if as_json else text.removesuffix("\n"))


def metrics(
    job_id: JobId,
    *,
    name: Annotated[str | None, typer.Option(help="Only this one, every point of it.")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the numbers that a job has recorded."""
    with connect(url, api_key) as client:
        series = client.metrics(job_id, name=name)
    show(series, tables.metrics(series) if name is None else tables.points(series), as_json=as_json)


def workers(*, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List the workers that live, with their slots."""
    with connect(url, api_key) as client:
        living = client.workers()
    show(living, tables.workers(living), as_json=as_json)


def strategies(*, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List what can compute the importance of a group."""
    with connect(url, api_key) as client:
        known = client.strategies()
    show(known, tables.strategies(known), as_json=as_json)
