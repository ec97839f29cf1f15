"""Workers as they cross HTTP."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from api.store.models import Worker


class SlotView(BaseModel):
    """A place for one job at a time."""

    device: str = Field(description="Name of the device.")
    devices: list[str] = Field(description="The values of a spec's `device` that it serves.")
    total_bytes: int = Field(description="Memory of the device.")
    free_bytes: int = Field(description="What of it a job could have.")
    busy: bool = Field(description="Whether it runs a job.")


class WorkerView(BaseModel):
    """One worker process."""

    id: str = Field(description="Host and process id; attempts name their worker by it.")
    slots: list[SlotView]
    started_at: datetime
    seen_at: datetime = Field(description="When it last said that it lives.")

    @classmethod
    def of(cls, worker: Worker) -> Self:
        """Show a row."""
        return cls(
            id=worker.id,
            slots=[SlotView.model_validate(slot) for slot in worker.slots],
            started_at=worker.started_at,
            seen_at=worker.seen_at,
        )


class WorkerList(BaseModel):
    """Every living worker."""

    data: list[WorkerView]
