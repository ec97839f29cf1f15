"""The results of a sweep as rows: seeds averaged, the Pareto front, the best within limits. Knows no database."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Self

from api.refusals import NothingFits, NothingMeasured
from api.store.sweeps import PointRow
from api.sweeps.schemas import Cost, Measures, Minimised, Row, RowJob

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a sweep.

    Attributes:
        paths: Fields of the grid that tell rows from each other.
        rows: In the order of the grid.
        averaged: Whether a row is of all points that differ in the seed alone.
    """

    paths: tuple[str, ...]
    rows: Sequence[Row]
    averaged: bool

    @classmethod
    def of(cls, points: Iterable[PointRow], grid: Mapping[str, Sequence[Any]], *, average_seeds: bool) -> Self:
        """Put points into the order of the grid, and together if they are to be averaged."""
        paths = tuple(path for path in grid if not (average_seeds and path == SEED))

        def place(point: PointRow) -> tuple[int, ...]:
            return tuple(values.index(point.point[path]) for path, values in grid.items())

        together: dict[str, list[PointRow]] = {}
        for point in sorted(points, key=place):
            key = json.dumps([point.point[path] for path in paths]) if average_seeds else point.job_id
            together.setdefault(key, []).append(point)
        return cls(paths=paths, rows=[_row(paths, group) for group in together.values()], averaged=average_seeds)

    def front(self, cost: Cost) -> Self:
        """The rows whose loss no other has at the same cost or less, the cheapest first."""
        found: list[Row] = []
        lowest = math.inf
        for row in sorted(self._measured(), key=lambda row: (_value(row, cost), _value(row, "loss"))):
            if _value(row, "loss") < lowest:
                found.append(row)
                lowest = _value(row, "loss")
        return replace(self, rows=found)

    def best(self, limits: Mapping[Cost, float], minimise: Minimised) -> Row:
        """The row with the least of something among those within the limits.

        Raises:
            NothingMeasured: No job has succeeded yet.
            NothingFits: None is within the limits; says which comes nearest.
        """
        measured = self._measured()
        if not measured:
            raise NothingMeasured("No job of the sweep has succeeded yet.")

        def excess(row: Row) -> float:
            return max((_value(row, name) / limit for name, limit in limits.items()), default=0.0)

        fitting = [row for row in measured if excess(row) <= 1]
        if fitting:
            return min(fitting, key=lambda row: _value(row, minimise))
        nearest = min(measured, key=excess)
        has = ", ".join(
            f"{name} {_value(nearest, name):,.10g} (at most {limit:,.10g})" for name, limit in limits.items()
        )
        jobs = ", ".join(job.id for job in nearest.jobs)
        raise NothingFits(f"None of {len(measured)} measured row(s) is within the limits. The nearest, {jobs}: {has}.")

    def as_csv(self) -> str:
        """One line a row, under a header: the grid's fields, the jobs, what was measured, its spread over seeds."""
        names = list(Measures.model_fields)
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow([*self.paths, "jobs", "states", *names, *(f"{name}_spread" for name in names if self.averaged)])
        for row in self.rows:
            values = [value if isinstance(value := row.point[path], str) else json.dumps(value) for path in self.paths]
            ids, states = " ".join(job.id for job in row.jobs), " ".join(job.state for job in row.jobs)
            lines.writerow([*values, ids, states, *_cells(row.result), *(_cells(row.spread) if self.averaged else [])])
        return text.getvalue()

    def _measured(self) -> list[Row]:
        return [row for row in self.rows if row.result is not None]


def _row(paths: Iterable[str], group: Sequence[PointRow]) -> Row:
    measured = [Measures.of(point.pruned) for point in group if point.pruned is not None]
    return Row(
        point={path: group[0].point[path] for path in paths},
        jobs=[RowJob(id=point.job_id, state=point.state) for point in group],
        result=_over(measured, fmean) if len(measured) > 1 else next(iter(measured), None),
        spread=_over(measured, stdev) if len(measured) > 1 else None,
    )


def _over(measured: Sequence[Measures], statistic: Callable[[list[float]], float]) -> Measures:
    return Measures(**{name: statistic([getattr(each, name) for each in measured]) for name in Measures.model_fields})


def _value(row: Row, name: Minimised) -> float:
    return float(getattr(row.result, name))


def _cells(measures: Measures | None) -> list[float | str]:
    return ["" if measures is None else getattr(measures, name) for name in Measures.model_fields]
