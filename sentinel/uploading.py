"""Brings files of this host to a service, of which only those are sent that are not there yet.

The service takes a file whole or not at all, and only with the size and sha256 that were declared. What was declared
also makes the idempotency key: the same files are the same upload, however often they are sent.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from sentinel.downloading import Progress
from sentinel.endpoint import path_of
from sentinel.errors import Fault, SentinelError
from sentinel.model_files import MODEL_SUFFIXES
from sentinel.replies import Upload, UploadFile
from sentinel.transport import TROUBLE, Retry, Session, check, understood

CHUNK_BYTES = 1024 * 1024
# The service stores a file before it answers, and of an archive every file in it.
TIMEOUT = httpx.Timeout(10.0, write=60.0, read=1800.0)


class NothingToUpload(SentinelError):
    """There is no file to send."""

    code = "nothing_to_upload"
    fault = Fault.USER
    next_step = "Name a folder that `save_pretrained` wrote, a .tar or .zip of one, or for a text one file."


class UploadRefused(SentinelError):
    """The same files were sent before, and refused."""

    code = "upload_refused"
    fault = Fault.USER
    next_step = "Upload other files; to have these looked at again, delete the upload first."


class FileChanged(SentinelError):
    """A file is not what it was when it was declared."""

    code = "file_changed"
    fault = Fault.USER
    next_step = "Upload again when nothing writes to the file any more."


def files_of_a_model(path: Path) -> dict[str, Path]:
    """Name → file, of a model's folder or of one archive.

    Raises:
        NothingToUpload: The folder has no such files, or there is none.
    """
    if not path.is_dir():
        return files_of_a_text(path)
    found = {file.name: file for file in sorted(path.iterdir()) if _is_of_a_model(file)}
    if not found:
        raise NothingToUpload(f"{path} has no files that a model is loaded from.")
    return found


def _is_of_a_model(file: Path) -> bool:
    return file.suffix in MODEL_SUFFIXES and not file.name.startswith(".") and file.is_file()


def files_of_a_text(path: Path) -> dict[str, Path]:
    """Name → file, of this one.

    Raises:
        NothingToUpload: There is none.
    """
    if not path.is_file():
        raise NothingToUpload(f"There is no file {path}.")
    return {path.name: path}


async def upload(
    session: Session, kind: str, files: Mapping[str, Path], *, name: str | None, progress: Progress | None
) -> Upload:
    """Declare files, and send those that the service does not have; returns the upload once it is ready.

    Args:
        session: Talks to the service.
        kind: `model` or `text`.
        files: Name → file.
        name: Of the upload.
        progress: Told whenever bytes were sent.

    Raises:
        UploadRefused: The same was refused before.
        FileChanged: A file has become shorter while it was sent.
    """
    declared = [await session.waiting.run(partial(_declaration, name, path)) for name, path in files.items()]
    document = {"kind": kind, "name": name, "files": declared}
    made = await session.make(Upload, "/v1/uploads", key=_key_of(document), json=document)
    if made.state == "refused":
        why = made.error.message if made.error else ""
        raise UploadRefused(f"The upload {made.id} of the same files was refused: {why}")
    sending = _Sending(session, made, progress)
    for file in made.files:
        if not file.stored:
            made = await sending.send(file, files[file.path])
    if made.state == "open":  # an earlier try ended between the last file and the check
        made = understood(Upload, await session.request("PUT", _address(made.id, 0), content=b"", timeout=TIMEOUT))
    return made


def _declaration(name: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"path": name, "bytes": stream.tell(), "sha256": digest}


def _address(upload_id: str, number: int) -> str:
    return path_of("uploads", upload_id, "files", number)


def _key_of(document: Mapping[str, object]) -> str:
    return f"upload-{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}"


class _Sending:
    """One upload's way there."""

    def __init__(self, session: Session, upload: Upload, progress: Progress | None) -> None:
        self._session = session
        self._id = upload.id
        self._total = sum(file.bytes for file in upload.files)
        self._sent = sum(file.bytes for file in upload.files if file.stored)
        self._progress = progress
        self._tell(0)

    async def send(self, file: UploadFile, path: Path) -> Upload:
        """Send a file, over as many tries as that takes."""
        before = self._sent
        retry = Retry(self._session)
        while True:
            try:
                return await self._try(file, path)
            except TROUBLE as error:
                self._sent = before
                await retry.pause(error)

    async def _try(self, file: UploadFile, path: Path) -> Upload:
        content, headers = self._chunks(file, path), {"Content-Length": str(file.bytes)}
        address = _address(self._id, file.number)
        answer = await self._session.http.put(address, content=content, headers=headers, timeout=TIMEOUT)
        return understood(Upload, await check(answer))

    async def _chunks(self, file: UploadFile, path: Path) -> AsyncGenerator[bytes, None]:
        """The file's bytes, as many as were declared."""
        left = file.bytes
        with path.open("rb") as stream:
            while left:
                chunk = await self._session.waiting.run(partial(stream.read, min(left, CHUNK_BYTES)))
                if not chunk:
                    raise FileChanged(f"{path} has become shorter while it was sent.")
                yield chunk
                left -= len(chunk)
                self._tell(len(chunk))

    def _tell(self, size: int) -> None:
        self._sent += size
        if self._progress is not None:
            self._progress(self._sent, self._total)
