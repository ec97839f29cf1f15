"""Jobs as they cross HTTP. Knows field names and how a row becomes one; nothing of requests."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel

from api.artifacts.schemas import ArtifactView
from api.errors import ProblemField
from api.parameters import JOB_ID
from api.store.models import Artifact, Attempt, Job, JobEvent, Metric, Outcome
from api.store.placement import Placement
from api.store.states import State, is_terminal
from sentinel.needs import Needs
from sentinel.spec import Spec


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class FailureView(_View):
    """Why a job or an attempt failed."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="Stable machine-readable name of the failure.")
    fault: str = Field(description="Who has to act: `user`, `resource` or `service`.")
    message: str = Field(description="What was wrong.")
    next_step: str = Field(description="What to do now.")


class JobLinks(_View):
    """Where to go from a job."""

    self: str
    events: str
    metrics: str
    attempts: str
    logs: str
    artifacts: str
    pause: str
    resume: str
    cancel: str
    retry: str


class JobSummary(_View):
    """One job in a list."""

    id: str = Field(examples=[JOB_ID])
    key_id: str | None = Field(description="Of the key that submitted it.")
    parent_id: str | None = Field(description="The job that this one tries again.", examples=[None])
    sweep_id: str | None = Field(description="The sweep that it belongs to.", examples=[None])
    point: dict[str, Any] | None = Field(description="What the grid of its sweep says of it.", examples=[None])
    name: str | None = Field(description="As the spec names it; need not be unique.")
    state: State
    phase: str | None = Field(description="What a running job is doing.", examples=["healing"])
    cycle: int | None = Field(description="The latest cycle, from 1.")
    kept_cycle: int | None = Field(description="The latest cycle whose state is kept, behind which a run can go on.")
    progress: float = Field(description="Share that is done, 0 to 1.")
    attempt: int = Field(description="Tries so far.")
    max_attempts: int
    priority: int = Field(description="Higher runs first.")
    not_before: datetime = Field(description="When a queued job may start; later after an attempt that failed.")
    deadline: datetime | None = Field(description="When the job fails if it has not ended.")
    queue_reason: str | None = Field(description="Why a queued job has not started; null if it is about to.")
    needs_bytes: int | None = Field(
        description="Estimated peak of its device's memory; null until a worker has seen the model."
    )
    error: FailureView | None = Field(
        description="Why the job failed, or why its sweep's budget let it wait no longer."
    )
    checkpoint_uri: str | None = Field(
        description="The pruned model as a tar, once the job has ended; without success, as its kept cycle left it."
    )
    request_id: str | None = Field(description="Of the request that made the job.")
    trace_id: str | None = Field(description="Of that request's trace, which the log lines of every attempt carry.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    links: JobLinks

    @classmethod
    def of(cls, job: Job, placement: Placement, **more: Any) -> Self:  # noqa: ANN401 - fields of subclasses
        """Show a row."""
        columns = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        here = f"/v1/jobs/{job.id}"
        parts = ("events", "metrics", "attempts", "logs", "artifacts", "pause", "resume", "cancel", "retry")
        links = JobLinks(self=here, **{part: f"{here}/{part}" for part in parts})
        readable = job.state == State.SUCCEEDED or (is_terminal(job.state) and job.kept_cycle is not None)
        checkpoint_uri = f"{here}/checkpoint" if readable else None
        shown = {**columns, "links": links, "checkpoint_uri": checkpoint_uri, "queue_reason": placement.reason(job)}
        return cls.model_validate(shown | more)


class JobView(JobSummary):
    """One job with everything that is known of it."""

    spec: dict[str, Any] = Field(description="The resolved spec: every default filled in.")
    result: dict[str, Any] | None = Field(description="Before/after metrics, once the job has succeeded.")
    artifacts: list[ArtifactView] = Field(description="Its files, once the job has ended.")

    @classmethod
    def whole(cls, job: Job, placement: Placement, artifacts: Sequence[Artifact]) -> Self:
        """Show a row with its published files."""
        return cls.of(job, placement, artifacts=[ArtifactView.of(artifact) for artifact in artifacts])


class JobPage(_View):
    """One page of jobs, newest first."""

    data: list[JobSummary]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool


class Verdict(_View):
    """What is wrong with a spec, without running it."""

    valid: bool
    errors: list[ProblemField] = Field(description="Every mistake, all at once; of very many the first 100.")
    resolved_spec: Spec | None = Field(description="The spec with every default filled in; null if it is not valid.")
    estimate: Needs | None = Field(
        description="What it will take; null if it is not valid, or while nobody here has seen the model."
    )
    queue_reason: str | None = Field(description="What would keep the job from starting now; null if nothing would.")


class EventView(_View):
    """One line of a job's history."""

    seq: int = Field(description="From 1, without gaps.")
    type: str = Field(description="`state`, `phase`, `metric`, `message` or `checkpoint`; more may come.")
    data: dict[str, Any]
    token: int | None = Field(description="The claim that wrote it; null for what the API did.")
    created_at: datetime

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """Show a row."""
        return cls.model_validate(event)


class EventPage(_View):
    """A stretch of history; continue with `after` = the last `seq`."""

    data: list[EventView]
    has_more: bool


class MetricPoint(_View):
    """One measured number."""

    step: int = Field(description="Healing steps so far, over the whole experiment.")
    value: float
    cycle: int | None
    token: int = Field(description="The claim that measured it; see the attempts.")
    time: datetime

    @classmethod
    def of(cls, metric: Metric) -> Self:
        """Show a row."""
        return cls(step=metric.step, value=metric.value, cycle=metric.cycle, token=metric.token, time=metric.created_at)


class MetricSeries(RootModel[dict[str, list[MetricPoint]]]):
    """Metric name → its points in order."""


class AttemptView(_View):
    """One try of a job on one worker."""

    number: int = Field(description="Of the try, from 1.")
    token: int = Field(description="The fencing number of its claim.")
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: Outcome | None = Field(description="How it ended; null while it runs.")
    error: FailureView | None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Show a row."""
        return cls.model_validate(attempt)


class AttemptList(_View):
    """Every try, in order."""

    data: list[AttemptView]
