"""Sweeps as they cross HTTP. Knows field names and how rows become them; nothing of requests."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from api.errors import ProblemField
from api.store.models import Sweep
from api.store.states import State, is_terminal
from api.store.sweeps import Standing
from sentinel.needs import Needs
from sentinel.sweep_spec import Budget, SweepSpec

Cost = Literal["parameters", "latency_ms", "kv_bytes_per_token"]
Minimised = Literal["loss", "perplexity", "kl_to_dense", Cost]


class SweepLinks(BaseModel):
    """Where to go from a sweep."""

    self: str
    jobs: str
    table: str
    best: str
    cancel: str


class SweepSummary(BaseModel):
    """One sweep in a list."""

    id: str
    name: str | None = Field(description="As it was submitted; need not be unique.")
    points: int = Field(description="Combinations of the grid's values, each of which is a job.")
    counts: dict[State, int] = Field(
        description="Number of points by the state of their jobs; of a retried one, the retry."
    )
    progress: float = Field(description="Share that is done, 0 to 1; what has ended is done.")
    ended: bool = Field(description="Whether every job has ended; a retry can change that.")
    max_parallel: int | None = Field(description="How many of its jobs may run at the same time.")
    budget: Budget | None = Field(description="What it may use.")
    used_slot_s: float = Field(description="Seconds for which its jobs have held slots of workers, over all attempts.")
    created_at: datetime
    links: SweepLinks

    @classmethod
    def of(cls, sweep: Sweep, standing: Standing, **more: Any) -> Self:  # noqa: ANN401 - fields of subclasses
        """Show a row."""
        here = f"/v1/sweeps/{sweep.id}"
        parts = {part: f"{here}/{part}" for part in ("table", "best", "cancel")}
        return cls(
            id=sweep.id,
            name=sweep.name,
            points=sum(standing.counts.values()),
            counts={state: standing.counts.get(state, 0) for state in State},
            progress=standing.progress,
            ended=all(map(is_terminal, standing.counts)),
            max_parallel=sweep.max_parallel,
            budget=None if sweep.slot_seconds is None else Budget(slot_seconds=sweep.slot_seconds),
            used_slot_s=round(standing.used_slot_s, 3),
            created_at=sweep.created_at,
            links=SweepLinks(self=here, jobs=f"/v1/jobs?sweep={sweep.id}", **parts),
            **more,
        )


class SweepView(SweepSummary):
    """One sweep with what was submitted."""

    document: dict[str, Any] = Field(description="What was submitted, with every default of a sweep filled in.")

    @classmethod
    def whole(cls, sweep: Sweep, standing: Standing) -> Self:
        """Show a row with its document."""
        return cls.of(sweep, standing, document=sweep.document)


class SweepPage(BaseModel):
    """One page of sweeps, newest first."""

    data: list[SweepSummary]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool


class SweepVerdict(BaseModel):
    """What is wrong with a sweep, without running it."""

    valid: bool
    errors: list[ProblemField] = Field(description="Every mistake of every point, all at once.")
    document: SweepSpec | None = Field(description="The sweep with its defaults filled in; null if it is not valid.")
    points: list[dict[str, Any]] = Field(description="The values of each job, in the order in which they run.")
    largest: Needs | None = Field(
        description="What the job will take that needs the most memory; null while nobody here has seen its model."
    )


class Measures(BaseModel):
    """What was measured of pruned models."""

    loss: float = Field(description="Nats per token on the evaluation text.")
    perplexity: float
    kl_to_dense: float = Field(description="KL(dense ‖ pruned), nats per token.")
    agreement: float = Field(description="Share of predictions in which both rank the same next token first.")
    parameters: int | float
    kv_bytes_per_token: int | float
    latency_ms: float = Field(description="Of one window; compares only between jobs on the same kind of device.")
    attention_groups: int | float
    mlp_groups: int | float

    @classmethod
    def of(cls, pruned: Mapping[str, Any]) -> Self:
        """From the part of a job's result that is about the pruned model."""
        groups = {f"{unit}_groups": pruned["groups"][unit] for unit in ("attention", "mlp")}
        return cls.model_validate({**pruned, **groups})


class RowJob(BaseModel):
    """The job behind a row."""

    id: str
    state: State


class Row(BaseModel):
    """One point of a sweep; with averaged seeds, all points that differ in the seed alone."""

    point: dict[str, Any] = Field(description="Its values.")
    jobs: list[RowJob] = Field(description="One, or as many as there are seeds.")
    result: Measures | None = Field(description="Mean over the jobs that have succeeded; null before one has.")
    spread: Measures | None = Field(description="Standard deviation over them; null of fewer than two.")


class SweepTable(BaseModel):
    """Rows, in the order of the grid; of a Pareto front, the cheapest first."""

    data: list[Row]
