"""What a command prints of what a service said: a table to people, one JSON object to programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from sentinel.fitting import fitted
from sentinel.outcomes import output
from sentinel.replies import ProblemField


def show(
    found: BaseModel | Sequence[BaseModel] | Mapping[str, Sequence[BaseModel]], table: Table, *, as_json: bool
) -> None:
    """Print what was found; of a list, `{"data": […]}`."""
    if as_json:
        print(json.dumps(_as_document(found)))
    else:
        show_table(table)


def show_table(table: Table) -> None:
    """Print a table as the terminal has room for it."""
    console = output()
    console.print(fitted(table, console.width) if table.show_header else table)


def show_mistakes(mistakes: Iterable[ProblemField]) -> None:
    """A line for each, to people."""
    console = output()
    for mistake in mistakes:
        console.print(f"{mistake.pointer or '/'}: {mistake.message}", markup=False, highlight=False)


def show_deleted(what: str, *, as_json: bool) -> None:
    """Say which thing is there no more."""
    print(json.dumps({"deleted": what}) if as_json else f"deleted {what}")


def show_new_secret(made: BaseModel, secret: str, table: Table, *, as_json: bool) -> None:
    """Print what was made, its secret last: nobody will show it again."""
    show(made, table, as_json=as_json)
    if not as_json:
        console = output()
        console.print("Keep this, it is not shown again:")
        console.print(secret, markup=False, highlight=False, soft_wrap=True)


def _as_document(found: Any) -> Any:  # noqa: ANN401 - any of the above
    if isinstance(found, BaseModel):
        return _dumped(found)
    if isinstance(found, Mapping):
        return {name: [_dumped(point) for point in points] for name, points in found.items()}
    return {"data": [_dumped(value) for value in found]}


def _dumped(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True)
