"""Repositories as they cross HTTP, named and spelled as the Hub does."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Named(BaseModel):
    model_config = ConfigDict(validate_by_name=True)


class Lfs(_Named):
    """The content of a file; trees call its sha256 `oid`, a model's info calls it `sha256`."""

    oid: str
    sha256: str
    size: int
    pointer_size: int = Field(alias="pointerSize")


class TreeEntry(BaseModel):
    """A file or a folder."""

    type: Literal["file", "directory"]
    path: str
    size: int
    oid: str
    lfs: Lfs | None = None


class Sibling(_Named):
    """One of all files of a model."""

    rfilename: str
    size: int
    blob_id: str = Field(alias="blobId")
    lfs: Lfs


class ModelInfo(_Named):
    """A model; what nobody counts here is 0."""

    id: str
    sha: str = Field(description="The commit: it names these very files.")
    created_at: datetime = Field(alias="createdAt")
    last_modified: datetime | None = Field(alias="lastModified")
    siblings: list[Sibling]
    author: str = "jobs"
    library_name: str = "transformers"
    pipeline_tag: str = "text-generation"
    tags: list[str] = []
    private: bool = True
    gated: bool = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
