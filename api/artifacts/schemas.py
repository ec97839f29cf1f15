"""Artifacts as they cross HTTP."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api.parameters import ARTIFACT_ID
from api.store.models import Artifact, ArtifactKind


class ArtifactLinks(BaseModel):
    """Where an artifact's bytes are."""

    content: str


class ArtifactView(BaseModel):
    """One immutable file of a job."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=[ARTIFACT_ID])
    kind: ArtifactKind
    path: str = Field(
        description="Within the job's output, e.g. `checkpoint/config.json`.",
        examples=["checkpoint/config.json"],
    )
    sha256: str
    bytes: int
    media_type: str
    created_at: datetime
    expired_at: datetime | None = Field(description="Since when its bytes are not kept any more.")
    links: ArtifactLinks

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Show a row."""
        columns = {name: getattr(artifact, name) for name in cls.model_fields if name != "links"}
        return cls(**columns, links=ArtifactLinks(content=f"/v1/artifacts/{artifact.id}/content"))


class ArtifactList(BaseModel):
    """Every file of a job, by path."""

    data: list[ArtifactView]
