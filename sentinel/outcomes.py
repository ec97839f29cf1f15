"""How a command ends: exit codes, and what is said of an error to people and to programs."""

import json
import sys
from enum import IntEnum
from typing import Any

from rich.console import Console

from sentinel.access import KeyMissing
from sentinel.errors import Fault, SentinelError, SpecInvalid


class ExitCode(IntEnum):
    """What the shell gets; 0 is success."""

    FAILED = 1
    WRONG_INPUT = 2  # as shells and argparse have it
    JOB_DID_NOT_SUCCEED = 3
    NO_ACCESS = 4
    NOT_FOUND = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


STATUS_CODES = {
    401: ExitCode.NO_ACCESS,
    403: ExitCode.NO_ACCESS,
    404: ExitCode.NOT_FOUND,
    410: ExitCode.NOT_FOUND,
    429: ExitCode.NO_ACCESS,
}


def exit_code(error: SentinelError) -> ExitCode:
    """How a command ends that met this error."""
    from sentinel.endpoint import KeyInvalid
    from sentinel.transport import ServiceRefused, ServiceUnreachable  # with httpx, which few commands need

    match error:
        case KeyMissing() | KeyInvalid():
            return ExitCode.NO_ACCESS
        case ServiceUnreachable():
            return ExitCode.UNREACHABLE
        case ServiceRefused(problem=problem):
            otherwise = ExitCode.FAILED if problem.status >= 500 else ExitCode.WRONG_INPUT
            return STATUS_CODES.get(problem.status, otherwise)
    return ExitCode.WRONG_INPUT if error.fault is Fault.USER else ExitCode.FAILED


def explain(error: SentinelError, *, as_json: bool) -> None:
    """Say what was wrong and what to do: to people on stderr, to programs as the last line of stdout."""
    if as_json:
        print(json.dumps({"error": _as_document(error)}))
        return
    console = Console(stderr=True, soft_wrap=True)
    console.print(error.message, style="bold red", markup=False, highlight=False)
    if isinstance(error, SpecInvalid):
        for mistake in error.errors:
            console.print(f"  {mistake.pointer or '/'}: {mistake.message}", markup=False, highlight=False)
    console.print(error.instance_next_step, markup=False, highlight=False)


def _as_document(error: SentinelError) -> dict[str, Any]:
    from sentinel.transport import ServiceRefused

    if isinstance(error, ServiceRefused):
        problem = error.problem.model_dump(mode="json")
        return error.as_dict() | problem | {"message": problem.pop("detail")}
    mistakes = [vars(mistake) for mistake in error.errors] if isinstance(error, SpecInvalid) else []
    return error.as_dict() | {"errors": mistakes}


def output() -> Console:
    """Where results go. What is no terminal has no width: nothing is cut off for a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=1000)
