"""`sentinel sweep …`: many jobs as one, and what they have measured. Thin over `sentinel.client`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sentinel import tables
from sentinel.access import STAYING_S, AsJson, Key, Url, connect
from sentinel.arguments import Deadline, Grace, IdempotencyKey, Most, NotBefore, Priority, moment
from sentinel.display import SweepDisplay
from sentinel.outcomes import ExitCode
from sentinel.replies import Cost, Minimised
from sentinel.showing import show, show_mistakes, show_table
from sentinel.spec import load_document

if TYPE_CHECKING:  # httpx comes with it, which `--help` can do without
    from sentinel.client import SentinelClient

group = typer.Typer(help="Submit a grid of specs as one, and compare what comes out.", no_args_is_help=True)

SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="Id of the sweep, `swp_…`.")]
SweepFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON with `spec` and `grid`.")]
Average = Annotated[bool, typer.Option("--average-seeds", help="One row for all points that differ in the seed alone.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.add_typer(group, name="sweep")


@group.command()
def submit(
    file: SweepFile,
    *,
    priority: Priority = 0,
    not_before: NotBefore = None,
    deadline: Deadline = None,
    idempotency_key: IdempotencyKey = None,
    follow: Annotated[bool, typer.Option("--watch", help="Stay until all of its jobs have ended.")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job for every combination of the grid's values, or none."""
    document = load_document(file)
    with connect(url, api_key, patience_s=STAYING_S if follow else None) as client:
        sweep = client.submit_sweep(
            document,
            priority=priority,
            not_before=moment(not_before),
            deadline=moment(deadline),
            idempotency_key=idempotency_key,
        )
        if follow:
            _watch(client, sweep.id, as_json=as_json)
        else:
            print(sweep.model_dump_json() if as_json else sweep.id)


@group.command()
def validate(file: SweepFile, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Ask the service what is wrong with a sweep, or else which points it has; nothing runs."""
    document = load_document(file)
    with connect(url, api_key) as client:
        verdict = client.validate_sweep(document)
    if as_json or verdict.valid:
        show(verdict, tables.sweep_points(verdict), as_json=as_json)
    if not verdict.valid:
        if not as_json:
            show_mistakes(verdict.errors)
        raise typer.Exit(ExitCode.WRONG_INPUT)


@group.command("list")
def list_sweeps(*, limit: Most = 50, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List sweeps, newest first."""
    with connect(url, api_key) as client:
        sweeps = list(islice(client.list_sweeps(), limit))
    show(sweeps, tables.sweeps(sweeps), as_json=as_json)


@group.command()
def get(sweep_id: SweepId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show one sweep as it is now."""
    with connect(url, api_key) as client:
        sweep = client.get_sweep(sweep_id)
    show(sweep, tables.sweep(sweep), as_json=as_json)


@group.command()
def watch(sweep_id: SweepId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show a sweep's progress until all of its jobs have ended, then its table."""
    with connect(url, api_key, patience_s=STAYING_S) as client:
        _watch(client, sweep_id, as_json=as_json)


@group.command()
def table(
    sweep_id: SweepId,
    *,
    pareto: Annotated[Cost, typer.Option(help="What the front that is marked weighs against the loss.")] = "parameters",
    front: Annotated[bool, typer.Option("--front", help="Only the front, the cheapest first.")] = False,
    average_seeds: Average = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what the jobs of a sweep have measured; a star marks what no other row beats at the same cost."""
    with connect(url, api_key) as client:
        best = client.sweep_table(sweep_id, pareto=pareto, average_seeds=average_seeds)
        rows = best if front else client.sweep_table(sweep_id, average_seeds=average_seeds)
    show(rows, tables.sweep_rows(rows, best), as_json=as_json)


@group.command()
def best(
    sweep_id: SweepId,
    *,
    max_parameters: Annotated[float | None, typer.Option(help="Parameters at most.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Milliseconds a window at most.")] = None,
    max_kv_bytes_per_token: Annotated[float | None, typer.Option(help="Bytes of cache a token at most.")] = None,
    minimise: Annotated[Minimised, typer.Option(help="What it has the least of.")] = "loss",
    average_seeds: Average = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the best result of a sweep within limits."""
    with connect(url, api_key) as client:
        row = client.sweep_best(
            sweep_id,
            max_parameters=max_parameters,
            max_latency_ms=max_latency_ms,
            max_kv_bytes_per_token=max_kv_bytes_per_token,
            minimise=minimise,
            average_seeds=average_seeds,
        )
    show(row, tables.sweep_rows([row]), as_json=as_json)


@group.command()
def cancel(
    sweep_id: SweepId, *, grace_s: Grace = None, url: Url = None, api_key: Key = None, as_json: AsJson = False
) -> None:
    """Cancel every job of a sweep that has not ended."""
    with connect(url, api_key) as client:
        sweep = client.cancel_sweep(sweep_id, grace_s=grace_s)
    show(sweep, tables.sweep(sweep), as_json=as_json)


def _watch(client: "SentinelClient", sweep_id: str, *, as_json: bool) -> None:
    console = Console(stderr=True)
    try:
        with SweepDisplay(console) as display:
            for sweep in client.sweep_changes(sweep_id):
                display.tell(sweep.counts, sweep.progress)
    except KeyboardInterrupt:
        hint = f"The sweep goes on; `sentinel sweep watch {sweep_id}` shows it again."
        console.print(hint, highlight=False, soft_wrap=True)
        raise
    if as_json:
        print(sweep.model_dump_json())
    else:
        rows, front = client.sweep_table(sweep_id), client.sweep_table(sweep_id, pareto="parameters")
        show_table(tables.sweep_rows(rows, front))
    if sweep.counts.get("succeeded") != sweep.points:
        raise typer.Exit(ExitCode.JOB_DID_NOT_SUCCEED)
