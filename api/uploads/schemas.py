"""Uploads as they cross HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from api.jobs.schemas import FailureView
from api.parameters import Body
from api.store.models import Upload, UploadFile, UploadKind, UploadState
from api.store.uploads import Declaration, DeclaredFile
from api.uploads.contents import FILE_NAME, mistake_in

MOST_FILES = 5_000  # of them the service's own limit is far less; a body of 1 MiB can name twice as many
LARGEST_BYTES = 2**53 - 1  # that every reader of JSON knows exactly
EXAMPLE: JsonDict = {
    "kind": "model",
    "name": "my llama",
    "files": [
        {"path": "config.json", "bytes": 812, "sha256": "7d0f" * 16},
        {"path": "model.safetensors", "bytes": 1_048_576, "sha256": "e3b0" * 16},
        {"path": "tokenizer.json", "bytes": 90_112, "sha256": "51c2" * 16},
    ],
}


class FileDeclaration(Body):
    """One file that is to come."""

    path: str = Field(description="A plain file name.", pattern=f"^{FILE_NAME}$")
    bytes: int = Field(description="Its size.", ge=0, le=LARGEST_BYTES)
    sha256: str = Field(description="Of its bytes, in hexadecimal.", pattern=r"^[0-9a-f]{64}$")


class UploadRequest(Body):
    """What an upload is to be."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    kind: UploadKind = Field(
        description="`model`: a folder for `from_pretrained`, or a .tar or .zip of one; or `text`."
    )
    name: str | None = Field(
        None, max_length=200, pattern=r"^[^\x00-\x1f]*$", description="For people; need not be unique; one line."
    )
    files: list[FileDeclaration] = Field(description="All of them.", min_length=1, max_length=MOST_FILES)

    @model_validator(mode="after")
    def _consist_of_the_right_files(self) -> Self:
        if mistake := mistake_in(self.kind, [file.path for file in self.files]):
            raise ValueError(mistake)
        return self

    def declaration(self) -> Declaration:
        """As the store takes it."""
        files = [DeclaredFile(**file.model_dump()) for file in self.files]
        return Declaration(kind=self.kind, name=self.name, files=files)


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class UploadLinks(_View):
    """Where to go from an upload."""

    self: str


class UploadSummary(_View):
    """One upload in a list."""

    id: str
    kind: UploadKind
    name: str | None
    state: UploadState = Field(description="`open` until all files are here, then `ready`, or `refused` for good.")
    bytes: int = Field(description="What its files take, those that are still to come included.")
    error: FailureView | None = Field(description="Why it was refused.")
    created_at: datetime
    updated_at: datetime
    links: UploadLinks

    @classmethod
    def of(cls, upload: Upload, **more: object) -> Self:
        """Show a row."""
        columns = {name: getattr(upload, name) for name in cls.model_fields if hasattr(upload, name)}
        return cls.model_validate({**columns, "links": UploadLinks(self=f"/v1/uploads/{upload.id}"), **more})


class UploadFileLinks(_View):
    """Where a file's bytes go."""

    content: str = Field(description="To be `PUT` there.")


class UploadFileView(_View):
    """One file of an upload."""

    number: int
    path: str
    bytes: int
    sha256: str
    stored: bool = Field(description="Whether it is here and right.")
    links: UploadFileLinks


class UploadView(UploadSummary):
    """One upload with its files; of an archive, once it is unpacked, with what was in it."""

    files: list[UploadFileView]

    @classmethod
    def whole(cls, upload: Upload, files: Sequence[UploadFile]) -> Self:
        """Show a row with its files."""
        return cls.of(upload, files=[_file_view(file) for file in files])


def _file_view(file: UploadFile) -> UploadFileView:
    return UploadFileView(
        number=file.number,
        path=file.path,
        bytes=file.bytes,
        sha256=file.sha256,
        stored=file.storage_key is not None,
        links=UploadFileLinks(content=f"/v1/uploads/{file.upload_id}/files/{file.number}"),
    )


class UploadPage(_View):
    """One page of uploads, newest first."""

    data: list[UploadSummary]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")
    has_more: bool
