"""What several commands take as arguments, specs and jobs above all, and how a shell completes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sentinel.access import find
from sentinel.errors import Fault, SentinelError
from sentinel.spec_flags import flags

COMPLETION_TIMEOUT_S = 1.0
SHOWN_JOBS = 50


@dataclass(frozen=True)
class _Completion:
    """What typer shows of a completion."""

    value: str
    help: str
    type: str = "plain"


class SpecCommand(TyperCommand):
    """A command that takes every field of a spec as a flag, and completes their names."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:  # noqa: ANN401 - click's own, which typer hides
        """Options of the command, then fields of the spec."""
        fields = [_Completion(flag.name, flag.description) for flag in flags() if flag.name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *(fields if incomplete.startswith("-") else [])]


def _values(ctx: typer.Context) -> list[str]:
    """What can follow the flag before; a shell offers files where there is nothing."""
    before = (ctx.params.get("arguments") or [""])[-1]
    return [value for flag in flags() if flag.name == before for value in flag.choices]


def _jobs(ctx: typer.Context) -> list[tuple[str, str]]:
    """Ids of the newest jobs, if the service says them at once."""
    import httpx

    from sentinel.endpoint import address, bearer
    from sentinel.replies import JobSummary, Page

    try:
        url, api_key = find(ctx.params.get("url"), ctx.params.get("api_key"))
        jobs = f"{address(url)}/v1/jobs"
        answer = httpx.get(jobs, headers=bearer(api_key), params={"limit": SHOWN_JOBS}, timeout=COMPLETION_TIMEOUT_S)
        page = Page[JobSummary].model_validate_json(answer.raise_for_status().content)
    except (SentinelError, httpx.HTTPError, ValueError):
        return []
    return [(job.id, f"{job.state} {job.name or ''}".strip()) for job in page.data]


# typer passes on whatever it does not know.
SPEC_ARGUMENTS: dict[str, Any] = {"cls": SpecCommand, "context_settings": {"ignore_unknown_options": True}}
SpecArguments = Annotated[
    list[str] | None,
    typer.Argument(
        help="A spec file and/or fields as flags, e.g. --prune.strategy entropy; `sentinel fields` lists them.",
        metavar="[SPEC] [--FIELD VALUE]...",
        autocompletion=_values,
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, `job_…`.", autocompletion=_jobs)]
Grace = Annotated[
    float | None,
    typer.Option("--grace", help="Seconds that a running job gets to finish its cycle.", show_default="the service's"),
]
Priority = Annotated[int, typer.Option(help="Higher runs first, -1000 to 1000.")]
NotBefore = Annotated[
    datetime | None, typer.Option(help="When the job may start, in local time.", show_default="at once")
]
Deadline = Annotated[
    datetime | None, typer.Option(help="When the job fails if it runs on, in local time.", show_default="never")
]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="Submitting the same again with it gives the same.", show_default="a new one")
]
Most = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]


class TimeInvalid(SentinelError):
    """A time that no time zone can say."""

    code = "time_invalid"
    fault = Fault.USER
    next_step = "Give a time of the years 1970 to 9998."


def moment(local: datetime | None) -> datetime | None:
    """What was typed, with the time zone of this host.

    Raises:
        TimeInvalid: It is at the ends of what can be said.
    """
    try:
        return local and local.astimezone()
    except (OverflowError, ValueError) as error:
        raise TimeInvalid(f"{local} cannot be said in other time zones.") from error
