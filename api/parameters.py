"""Parameters, and what bodies have in common, that several routers share.

Parameters are printable ASCII, because PostgreSQL refuses NUL in any text.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from api.settings import LONGEST_GRACE_S
from api.store.jobs import Terms
from sentinel.endpoint import IDEMPOTENCY_KEY

LARGEST_PRIORITY = 1000
MOST_FIELDS = 100  # of an object; each that is not known is a mistake, and takes the event loop ten microseconds
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
TOO_LATE = datetime(9999, 1, 1, tzinfo=UTC)  # every time zone can still say it


def _refuse_number(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
    """Seconds since 1970 are no time of RFC 3339, though Pydantic would take them."""
    if isinstance(value, int | float) or (isinstance(value, str) and "T" not in value.upper() and " " not in value):
        raise PydanticCustomError("time_format", "Write a time as RFC 3339 does: 2027-01-01T22:00:00Z")
    return value


def _refuse_far(value: datetime) -> datetime:
    """Near the ends of what Python and the databases can say, another time zone lies past them."""
    if not EARLIEST <= value < TOO_LATE:
        raise PydanticCustomError("time_range", "Write a time of the years 1970 to 9998 (UTC)")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_refuse_number), AfterValidator(_refuse_far)]
ID = r"^[!-~]{1,64}$"
JOB_ID = "job_019b2f5e6a7c7d10b3c4d5e6f7081920"
ARTIFACT_ID = "art_019b2f5e8c1e7a40a1b2c3d4e5f60718"
JobId = Annotated[str, Path(description="`job_…`", pattern=ID, examples=[JOB_ID])]
WebhookId = Annotated[str, Path(description="`whk_…`", pattern=ID)]
DeliveryId = Annotated[str, Path(description="`dlv_…`", pattern=ID)]
SweepId = Annotated[str, Path(description="`swp_…`", pattern=ID)]
ArtifactId = Annotated[str, Path(description="`art_…`", pattern=ID, examples=[ARTIFACT_ID])]
UploadId = Annotated[str, Path(description="`upl_…`", pattern=ID)]
KeyId = Annotated[str, Path(description="The middle part of `sntl_<id>_<secret>`.", pattern=ID)]
OfKey = Annotated[str | None, Query(description="Of this key only.", pattern=ID)]

IdempotencyKey = Annotated[
    str | None,
    Header(description="The same key and request give what they gave the first time.", pattern=IDEMPOTENCY_KEY),
]
Grace = Annotated[
    float | None,
    Query(
        description="Seconds that a running job gets to finish its cycle; as configured without.",
        ge=0,
        le=LONGEST_GRACE_S,
    ),
]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)]


class Body(BaseModel):
    """An object in a request, of known fields only."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_no_flood(cls, sent: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if isinstance(sent, dict) and len(sent) > MOST_FIELDS:
            raise PydanticCustomError("too_many_fields", f"An object has no more than {MOST_FIELDS} fields")
        return sent


def _terms(
    priority: Annotated[int, Query(description="Higher runs first.", ge=-LARGEST_PRIORITY, le=LARGEST_PRIORITY)] = 0,
    not_before: Annotated[Time | None, Query(description="When a job may start; at once without.")] = None,
    deadline: Annotated[Time | None, Query(description="When a job fails if it has not ended.")] = None,
) -> Terms:
    return Terms(priority=priority, not_before=not_before, deadline=deadline)


AskedTerms = Annotated[Terms, Depends(_terms)]
