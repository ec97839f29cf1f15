"""Keys as they cross HTTP. Their plaintext does so once, when they are made."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from api.parameters import Body, Time
from api.settings import RATE
from api.store.keys import LARGEST_AMOUNT, LARGEST_COUNT, LONGEST_DAYS, Scope
from api.store.models import ApiKey

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Rate = Annotated[str, Field(pattern=RATE, examples=["600/minute"])]
Few = Annotated[int, Field(strict=True, ge=0, le=LARGEST_COUNT)]
Many = Annotated[int, Field(strict=True, ge=0, le=LARGEST_AMOUNT)]
EXAMPLE: JsonDict = {
    "name": "nightly",
    "scopes": ["read", "submit"],
    "expires_in_days": 90,
    "quotas": {"max_queued_jobs": 100, "max_running_jobs": 4},
}
RATE_LIMIT = "Requests that it may send, like `600/minute`; null as the service has it."


class Quotas(Body):
    """What a key may have; null is as much as it likes."""

    model_config = ConfigDict(from_attributes=True)

    max_queued_jobs: Few | None = Field(None, description="Of its jobs, how many may be queued or paused.")
    max_running_jobs: Few | None = Field(None, description="How many may run at once; others stay queued.")
    max_gpu_seconds: Many | None = Field(
        None, description="How long they may hold slots, with a GPU or without, in a calendar month (UTC)."
    )
    max_stored_bytes: Many | None = Field(None, description="How much the files may take that they have published.")


class KeyOrder(Body):
    """A key to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: Name = Field(description="What the key is for.")
    scopes: list[Scope] = Field(min_length=1, max_length=50, description="What it may do; only what the caller may.")
    expires_at: Time | None = Field(None, description="When it ends; never without.")
    expires_in_days: int | None = Field(
        None, strict=True, ge=1, le=LONGEST_DAYS, description="Instead of `expires_at`."
    )
    quotas: Quotas = Field(default_factory=Quotas)
    rate_limit: Rate | None = Field(None, description=RATE_LIMIT)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        if self.expires_at is not None and self.expires_in_days is not None:
            raise ValueError("Give `expires_at` or `expires_in_days`, not both.")
        if self.expires_in_days is not None:
            self.expires_at = datetime.now(UTC) + timedelta(days=self.expires_in_days)
        return self


class KeyChange(Body):
    """What is to change of a key; what is not named stays as it is (RFC 7396)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"quotas": {"max_running_jobs": 2}}]})

    name: Name | None = Field(None, description="Null leaves it.")
    expires_at: Time | None = Field(None, description="When it ends; null never.")
    quotas: Quotas = Field(default_factory=Quotas, description="Those that are to change.")
    rate_limit: Rate | None = Field(None, description=RATE_LIMIT)


class KeyView(BaseModel):
    """One key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The middle part of `sntl_<id>_<secret>`.")
    name: str
    scopes: list[str]
    quotas: Quotas
    rate_limit: str | None = Field(description=RATE_LIMIT)
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey, /, **more: str) -> Self:
        """Show a row."""
        columns = {name: getattr(key, name) for name in cls.model_fields if hasattr(key, name)}
        return cls.model_validate({**columns, "quotas": Quotas.model_validate(key), **more})


class KeyMade(KeyView):
    """A new key, with the only copy of its plaintext."""

    key: str = Field(description="Keep it: it cannot be shown again.")


class KeyPage(BaseModel):
    """One page of keys, newest first."""

    data: list[KeyView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool
