"""`python -m api.doctor`: checks the installation that the environment describes; `sentinel doctor` runs it."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer
from pydantic import ValidationError

from api.doctor import checks, database
from api.doctor.findings import Check, Finding, Status, examine
from api.settings import Settings

CHECKS = (
    Check(name="settings", look=checks.settings),
    Check(name="packages", look=checks.packages, next_step="Install Sentinel with pip; its metadata cannot be read."),
    Check(
        name="database",
        look=database.database,
        next_step="Start the database, or correct SENTINEL_DATABASE_URL; this user must be able to write there.",
    ),
    Check(name="migrations", look=database.migrations, next_step=database.MIGRATE, needs="database"),
    Check(name="clock", look=database.clock, needs="database"),
    Check(name="workers", look=database.workers, needs="migrations"),
    Check(name="redis", look=checks.redis, next_step="Correct SENTINEL_REDIS_URL."),
    Check(
        name="storage",
        look=checks.storage,
        next_step="Correct SENTINEL_STORAGE_URI, or let this user write, read and delete there.",
    ),
    Check(name="sandbox", look=checks.sandbox),
    Check(name="disk", look=checks.disk, next_step="Correct SENTINEL_HOME and SENTINEL_STORAGE_URI."),
)


def main(
    *,
    url: Annotated[
        str | None, typer.Option(envvar="SENTINEL_URL", help="Address of an API that should be ready.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation that the environment describes: what was seen, and what to do next."""
    findings = list(diagnose(url))
    worst = max((finding.status for finding in findings), key=list(Status).index)
    if as_json:
        typer.echo(json.dumps({"status": worst, "checks": [finding._asdict() for finding in findings]}))
    else:
        for finding in findings:
            typer.echo(_as_text(finding))
    raise typer.Exit(code=int(worst is Status.BROKEN))


def diagnose(url: str | None = None) -> Iterator[Finding]:
    """Everything that can be checked here; without sound settings that is nothing else."""
    try:
        settings = Settings()
    except ValidationError as invalid:
        mistakes = (f"SENTINEL_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in invalid.errors())
        yield Finding("settings", Status.BROKEN, "; ".join(mistakes), "Correct these variables; then check again.")
        return
    yield from examine(settings, CHECKS)
    if url is not None:
        yield from examine(settings, [Check(name="api", look=partial(checks.api, url=url.rstrip("/")))])


def _as_text(finding: Finding) -> str:
    line = f"{finding.status:<8} {finding.name:<11} {finding.seen}"
    return line if finding.next_step is None else f"{line}\n{'':<20} → {finding.next_step}"


if __name__ == "__main__":
    typer.run(main)
