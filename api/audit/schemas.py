"""The audit log as it crosses HTTP."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.store.models import AuditEntry


class AuditEntryView(BaseModel):
    """Something that somebody did."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    action: str = Field(description="What was done, like `job.cancel` or `key.revoke`; more may come.")
    target: str = Field(description="The id of what it was done to.")
    details: dict[str, Any] | None = Field(description="What else there is to know of it.")
    key_id: str | None = Field(description="With which key; null for the operator.")
    request_id: str | None
    client: str | None = Field(description="The address from which the request came.")
    created_at: datetime

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Show a row."""
        return cls.model_validate(entry)


class AuditPage(BaseModel):
    """One page of the log, newest first."""

    data: list[AuditEntryView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool
