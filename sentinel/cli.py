"""The `sentinel` command. Thin: reads arguments, calls the library or the client, prints.

torch is imported only by `run`, `stress` and `check-family`, httpx only by what talks to a service; everything else
answers at once.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from sentinel import (
    init_command,
    key_commands,
    plot_command,
    reading_commands,
    service_commands,
    stress_command,
    sweep_commands,
    upload_commands,
    webhook_commands,
)
from sentinel.access import AsJson
from sentinel.arguments import SPEC_ARGUMENTS, SpecArguments
from sentinel.display import ProgressDisplay, result_tables
from sentinel.errors import Fault, SentinelError, SpecInvalid
from sentinel.events import CheckpointSaved, Event
from sentinel.outcomes import ExitCode, exit_code, explain, output
from sentinel.result import Result
from sentinel.spec import ModelSource, model_section
from sentinel.spec_flags import flags, spec_from_arguments
from sentinel.utils.checkpoints.cycle_state import drop_superseded

app = typer.Typer(
    help="Prune transformer language models and heal them.", no_args_is_help=True, pretty_exceptions_enable=False
)
for part in (
    init_command,
    plot_command,
    service_commands,
    reading_commands,
    sweep_commands,
    upload_commands,
    key_commands,
    webhook_commands,
    stress_command,
):
    part.register(app)


class ServiceNotInstalled(SentinelError):
    """This installation can talk to a service, but not be one."""

    code = "service_not_installed"
    fault = Fault.USER
    next_step = "Run it on a host of the service, or install that part: pip install 'sentinel-pruning[api]'."


class WrongCall(SentinelError):
    """The command line cannot be understood."""

    code = "wrong_call"
    fault = Fault.USER
    next_step = "Ask the command for its --help."


class FileUnusable(SentinelError):
    """A file or folder is in the way, is not there, or must not be touched."""

    code = "file_unusable"
    fault = Fault.USER
    next_step = "Name another file or folder, or put that one right."


class HostTrouble(SentinelError):
    """This host did not do what every program may ask for."""

    code = "host_trouble"
    fault = Fault.RESOURCE
    next_step = "Look after the disk and the memory of this host, and try again."


class Interrupted(SentinelError):
    """Somebody pressed Ctrl-C."""

    code = "interrupted"
    fault = Fault.USER
    next_step = "What was submitted goes on; what ran here goes on with --resume, if it had saved a state."


def main() -> None:
    """Run the command; turn foreseen errors into an exit code and two lines, or with --json one object."""
    as_json = "--json" in sys.argv
    try:
        # For people, typer itself explains a wrong call and ends.
        code = app(prog_name="sentinel", standalone_mode=not as_json)
    except SentinelError as error:
        _fail(error, as_json=as_json)
    except OSError as error:
        _fail(_of_host(error), as_json=as_json)
    except typer.TyperException as wrong:
        explain(WrongCall(wrong.format_message()), as_json=as_json)
        sys.exit(ExitCode.WRONG_INPUT)
    if code == ExitCode.INTERRUPTED:
        explain(Interrupted("Interrupted."), as_json=as_json)
    sys.exit(code)


def _fail(error: SentinelError, *, as_json: bool) -> NoReturn:
    explain(error, as_json=as_json)
    sys.exit(exit_code(error))


def _of_host(error: OSError) -> SentinelError:
    """What the operating system refuses, of a file if it names one."""
    if error.filename is None:
        return HostTrouble(f"{error.strerror or error}.")
    return FileUnusable(f"{error.filename}: {error.strerror}.")


@app.command(**SPEC_ARGUMENTS)
def run(
    arguments: SpecArguments = None,
    output: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics and plots.")] = Path("outputs/run"),
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last state in --output.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment here, without any service."""
    _refuse_company()
    spec = spec_from_arguments(arguments or [])
    state = _state_to_resume(output, resume=resume)
    # Imported late: torch takes seconds, and a wrong spec should answer at once.
    from transformers.utils import logging

    from sentinel import experiment

    logging.disable_progress_bar()
    # A file of its own, as lm_eval's output is led away from sys.stderr.
    with ProgressDisplay(Console(file=sys.stderr)) as display:
        result = experiment.run(spec, output=output, reporter=_LocalRun(display), resume=state)
    _show(result, as_json=as_json)


def _refuse_company() -> None:
    """Processes that a launcher started together would all do the same run, and write it to the same folder."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise WrongCall(
            "A run is one process, and a launcher started several (WORLD_SIZE).",
            next_step="Start `sentinel run` by itself; docs/healing.md says how processes share a healing in Python.",
        )


class _LocalRun:
    """Shows a run, and removes the states of its healing that newer ones took the place of."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display

    def emit(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            drop_superseded(Path(event.directory))
        self._display.emit(event)


@app.command()
def fields(*, as_json: AsJson = False) -> None:
    """List every field of a spec, its flag, default and meaning."""
    if as_json:
        print(json.dumps({"data": [vars(flag) for flag in flags()]}))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("flag", "default", "meaning"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "flag")
    for flag in flags():
        table.add_row(flag.name, flag.default, flag.description)
    output().print(table, markup=False, highlight=False)


@app.command()
def check_family(
    model: Annotated[str, typer.Argument(help="A folder (./model), a hub id, or builtin/gpt2.")],
    *,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a hub model.")] = "main",
    as_json: AsJson = False,
) -> None:
    """Try on a model what must hold for every supported one: masking, surgery, export, reload."""
    source = _model_source(model, revision=revision)
    # Imported late: torch takes seconds, and a wrong name should answer at once.
    from transformers.utils import logging

    from sentinel.models.checking import check_family as laws

    logging.disable_progress_bar()
    results = laws.check_family(source)
    if as_json:
        print(json.dumps({"data": [vars(result) for result in results]}))
    else:
        table = Table("law", "cut", "measured", "passed", box=None, pad_edge=False)
        for result in results:
            table.add_row(result.law, result.cut, result.measured, "yes" if result.passed else "NO")
        output().print(table, markup=False, highlight=False)
    if not all(result.passed for result in results):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def doctor(
    *,
    url: Annotated[
        str | None, typer.Option(envvar="SENTINEL_URL", help="Address of an API that should be ready.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the service's installation on this host, as its environment describes it, and say what to do."""
    # The doctor belongs to the service, of which this package knows nothing: it runs as a process of its own.
    if find_spec("alembic") is None:
        raise ServiceNotInstalled("The service is not installed here, only its client.")
    options = [*(["--url", url] if url else []), *(["--json"] if as_json else [])]
    raise typer.Exit(subprocess.run([sys.executable, "-P", "-m", "api.doctor", *options], check=False).returncode)


def _model_source(name: str, *, revision: str) -> ModelSource:
    section = model_section(name)
    if section["source"] == "hub":
        section["revision"] = revision
    try:
        return TypeAdapter[ModelSource](ModelSource).validate_python(section)
    except ValidationError as invalid:
        raise SpecInvalid(f"{name!r} at {revision!r} is neither a folder, a hub id nor a builtin model.") from invalid


def _state_to_resume(output: Path, *, resume: bool) -> Path | None:
    # Plain paths, not sentinel.experiment's constants: importing those would import torch.
    states = sorted(path for path in (output / "state").glob("cycle-*") if path.suffix != ".partial")
    if resume:
        if not states:
            raise SpecInvalid(f"There is no saved state under {output} to resume from.")
        return states[-1]
    if states or (output / "result.json").exists():
        raise SpecInvalid(f"{output} already holds a run. Choose another --output, or --resume to go on with it.")
    return None


def _show(result: Result, *, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json())
        return
    console = output()
    console.print(result_tables(result))
    console.print(f"Checkpoint ({result.export_form}): {result.checkpoint}", highlight=False)
