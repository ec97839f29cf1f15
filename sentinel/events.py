"""What an experiment says while it runs, and to whom.

Events are plain frozen data, so they cross a process boundary as JSON lines and are stored
as they are. Nothing here knows who listens.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Phase(StrEnum):
    """What a running experiment is doing."""

    LOADING = "loading"
    WARMING_UP = "warming_up"
    MEASURING = "measuring"
    PRUNING = "pruning"
    HEALING = "healing"
    GROWING = "growing"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"
    PUBLISHING = "publishing"


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhaseStarted(_Event):
    """A phase begins. `cycle` counts from 1; null outside cycles."""

    type: Literal["phase"] = "phase"
    phase: Phase
    cycle: int | None = None


class Progressed(_Event):
    """The share of the whole experiment that is done, 0 to 1. Kept as the latest value, not as history."""

    type: Literal["progress"] = "progress"
    fraction: float = Field(ge=0, le=1)


class MetricRecorded(_Event):
    """One measured number. `step` counts steps of training over the whole experiment, a warm-up's included."""

    type: Literal["metric"] = "metric"
    name: str
    value: float
    step: int = Field(ge=0)
    cycle: int | None = None


class MessageLogged(_Event):
    """A sentence for the reader of the job: a decision with its reason, a warning."""

    type: Literal["message"] = "message"
    level: Literal["info", "warning", "error"] = "info"
    text: str


class NeedsEstimated(_Event):
    """What the experiment will take of its device's memory at most, told before the model is loaded."""

    type: Literal["needs"] = "needs"
    parameters: int
    memory_bytes: int


class CheckpointSaved(_Event):
    """A state from which a run can resume lies complete in `directory`.

    It is the one after `cycle` (0: none is finished yet), and where `step` is not null so many steps of training
    later: of the healing of the next one, and before the first cut of the warm-up. It takes the place of earlier ones
    after the same cycle.
    """

    type: Literal["checkpoint"] = "checkpoint"
    cycle: int
    step: int | None = None
    directory: str


class Finished(_Event):
    """The experiment is done; its output folder is complete. `result` is `sentinel.result.Result` as JSON."""

    type: Literal["finished"] = "finished"
    result: dict[str, Any]


class Failed(_Event):
    """The experiment stopped. `error` is `SentinelError.as_dict()`."""

    type: Literal["failed"] = "failed"
    error: dict[str, str]


Event = Annotated[
    PhaseStarted | Progressed | MetricRecorded | MessageLogged | NeedsEstimated | CheckpointSaved | Finished | Failed,
    Field(discriminator="type"),
]
EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


class Reporter(Protocol):
    """Whoever listens to an experiment."""

    def emit(self, event: Event) -> None:
        """Take one event. Called from the experiment's own thread, in order."""
