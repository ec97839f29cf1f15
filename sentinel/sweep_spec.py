"""The validated description of a sweep: a spec, and fields of it that take several values. Torch-free.

The values multiply: every combination is a point, and a point is one concrete spec. Knows where in the document a
mistake of a concrete spec lies. Knows nothing of jobs.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError, field_validator

from sentinel.errors import FieldError, SpecInvalid
from sentinel.prune_spec import Section
from sentinel.spec import Spec, field_errors, json_pointer, mistakes, parse_spec
from sentinel.spec_fields import set_field

LARGEST_SWEEP = 500  # points: they are checked and stored in one request
EXAMPLE: dict[str, JsonValue] = {
    "name": "strategies",
    "spec": {"model": "builtin/llama", "heal": None},
    "grid": {"prune.strategy": ["obs", "taylor"], "prune.target.sparsity": [0.25, 0.5], "seed": [0, 1, 2]},
    "max_parallel": 4,
    "budget": {"slot_seconds": 36000},
}

Values = list[JsonValue]
Grid = Mapping[str, Sequence[JsonValue]]
_Place = tuple[int, ...]  # of a point in the grid: for each field, which of its values


class SweepInvalid(SpecInvalid):
    """The document does not describe a sweep all of whose points can run."""

    code = "sweep_invalid"


class Budget(Section):
    """What a sweep may use in sum."""

    slot_seconds: float = Field(
        gt=0, description="Seconds for which its jobs hold slots of workers, over all attempts. Behind it, none starts."
    )


class SweepSpec(Section):
    """An experiment whose values multiply into many jobs."""

    name: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00-\x1f]*$",
        description="For people; also names its jobs, where `spec` does not.",
    )
    spec: dict[str, JsonValue] = Field(description="What a job's spec says, less the fields of the grid.")
    grid: dict[str, Annotated[Values, Field(min_length=1)]] = Field(
        min_length=1,
        description="Dotted path of a field of the spec → its values. Every combination is a job; the last field "
        "varies fastest.",
        examples=[EXAMPLE["grid"]],
    )
    max_parallel: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="How many of its jobs may run at the same time; null for as many as there are slots.",
    )
    budget: Budget | None = Field(None, description="What it may use; null for as much as it needs.")

    @field_validator("grid")
    @classmethod
    def _multiplies(cls, grid: dict[str, Values]) -> dict[str, Values]:
        size = math.prod(map(len, grid.values()))
        if size > LARGEST_SWEEP:
            raise ValueError(f"The grid has {size:,} points; a sweep can have {LARGEST_SWEEP:,}.")
        for outer, inner in product(grid, grid):
            if inner.startswith(f"{outer}."):
                raise ValueError(f"`{inner}` is a part of `{outer}`; name only one of them.")
        return grid


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of the grid's values, and the spec that it makes."""

    values: dict[str, JsonValue]
    spec: Spec


def parse_sweep(
    document: Any,  # noqa: ANN401 - whatever was parsed from JSON or YAML
    *,
    check: Callable[[dict[str, Any]], Spec] = parse_spec,
) -> tuple[SweepSpec, list[Point]]:
    """Validate a document and the spec of each of its points, in the order of the grid.

    Args:
        document: The sweep.
        check: Makes the spec of a point; raises `SpecInvalid` with its mistakes.

    Raises:
        SweepInvalid: With every mistake at once, each with its JSON pointer into `document`.
    """
    errors: list[FieldError] = []
    try:
        sweep: SweepSpec | None = SweepSpec.model_validate(document)
    except ValidationError as invalid:
        sweep, errors = _what_multiplies(document), field_errors(invalid, document)
    found: dict[FieldError, list[_Place]] = defaultdict(list)
    points = [] if sweep is None else list(_points(sweep, check, found))
    if sweep is not None:
        errors += _all_located(found, sweep.grid)
    if sweep is None or errors:
        raise SweepInvalid(mistakes("sweep", errors), errors=errors)
    return sweep, points


def check_points(
    sweep: SweepSpec, points: Sequence[Point], mistakes_of: Callable[[Spec], Sequence[FieldError]]
) -> None:
    """Ask once more of every point of a parsed sweep what is wrong with its spec.

    Raises:
        SweepInvalid: As `parse_sweep` does.
    """
    found: dict[FieldError, list[_Place]] = defaultdict(list)
    for place, point in zip(_places(sweep.grid), points, strict=True):
        for error in mistakes_of(point.spec):
            found[error].append(place)
    if errors := _all_located(found, sweep.grid):
        raise SweepInvalid(mistakes("sweep", errors), errors=errors)


def _all_located(found: Mapping[FieldError, Sequence[_Place]], grid: Grid) -> list[FieldError]:
    return [located for error, places in found.items() for located in _located(error, places, grid)]


def _what_multiplies(document: Any) -> SweepSpec | None:  # noqa: ANN401 - valid or not
    """The part of a document that points are made of, if that is sound."""
    with suppress(ValidationError, TypeError, KeyError):
        return SweepSpec(spec=document["spec"], grid=document["grid"])
    return None


def _points(
    sweep: SweepSpec, check: Callable[[dict[str, Any]], Spec], found: dict[FieldError, list[_Place]]
) -> Iterator[Point]:
    """The sound points; into `found` goes what is wrong with the others, and where."""
    repeated = FieldError(pointer="", code="point_repeated", message="An earlier point of the grid has the same spec.")
    seen: set[str] = set()
    for place in _places(sweep.grid):
        values = _values(sweep.grid, place)
        document: dict[str, Any] = {"name": sweep.name, **sweep.spec}
        for path, value in values.items():
            set_field(document, path, value)
        try:
            spec = check(document)
        except SpecInvalid as invalid:
            for error in invalid.errors:
                found[error].append(place)
            continue
        said = spec.model_dump_json()
        if said in seen:
            found[repeated].append(place)
        seen.add(said)
        yield Point(values=values, spec=spec)


def _places(grid: Grid) -> Iterator[_Place]:
    return product(*(range(len(values)) for values in grid.values()))


def _values(grid: Grid, place: _Place) -> dict[str, JsonValue]:
    return {path: values[index] for (path, values), index in zip(grid.items(), place, strict=True)}


def _located(error: FieldError, places: Sequence[_Place], grid: Grid) -> Iterator[FieldError]:
    """A mistake that the specs of some points have, with pointers into the document of the sweep.

    It lies in a value of the grid if it is that value's own, if the spec has no such field, or if just the points with
    the value have it.
    """
    size = math.prod(map(len, grid.values()))
    chosen = [sorted({place[axis] for place in places}) for axis in range(len(grid))]
    for path, indices in zip(grid, chosen, strict=True):
        field = json_pointer(*path.split("."))
        own = f"{error.pointer}/".startswith(f"{field}/")
        unknown = error.code == "extra_forbidden" and f"{field}/".startswith(f"{error.pointer}/")
        if own or unknown:
            rest = error.pointer[len(field) :]
            yield from (_moved(error, json_pointer("grid", path, index) + rest) for index in indices)
            return
    for (path, values), indices in zip(grid.items(), chosen, strict=True):
        if len(indices) < len(values) and len(places) == size // len(values) * len(indices):
            yield from (_moved(error, json_pointer("grid", path, index)) for index in indices)
            return
    if len(places) == size:
        yield _moved(error, f"/spec{error.pointer}")
        return
    together = ", ".join(f"{path} = {json.dumps(value)}" for path, value in _values(grid, places[0]).items())
    yield _moved(error, f"/spec{error.pointer}" if error.pointer else "/grid", f"{error.message} With {together}.")


def _moved(error: FieldError, pointer: str, message: str | None = None) -> FieldError:
    return FieldError(pointer=pointer, code=error.code, message=message or error.message)
