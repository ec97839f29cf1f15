"""Usage as it crosses HTTP."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.keys.schemas import Quotas
from api.store.states import State


class Use(BaseModel):
    """What jobs take, as the quotas count it."""

    queued_jobs: int = Field(description="How many are queued or paused.")
    running_jobs: int = Field(description="How many workers hold.")
    gpu_seconds: float = Field(description="How long they held slots, with a GPU or without, in the period.")
    stored_bytes: int = Field(description="How much the files take that they have published and that are kept.")
    jobs: dict[State, int] = Field(description="How many are in each state, whenever they were submitted.")


class KeyUse(Use):
    """What the jobs of one key take."""

    key_id: str | None = Field(description="Null for jobs that no key is known of.")
    name: str | None
    quotas: Quotas


class UsageReport(BaseModel):
    """What the jobs of a tenant take."""

    model_config = ConfigDict(validate_by_name=True)

    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    total: Use
    keys: list[KeyUse] = Field(description="Newest first.")
