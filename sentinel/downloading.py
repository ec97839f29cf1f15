"""Brings the files of a checkpoint into a folder, or nothing; goes on where an earlier try was cut off.

Trusts neither the service nor the storage that it may redirect to: a file must have its announced hash, and the API
key stays with the service.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx

from sentinel.replies import Artifact
from sentinel.transport import TROUBLE, Retry, Session, check
from sentinel.unfinished import PartialFile, UnfinishedFolder

# Hears how many bytes are there, and of how many.
Progress = Callable[[int, int], None]


async def download(
    session: Session, files: Mapping[str, Artifact], folder: Path, *, progress: Progress | None = None
) -> None:
    """Fetch every file into `folder`, which must hold nothing yet.

    Args:
        session: Talks to the service.
        files: Name in the folder → what the service announced.
        folder: Appears complete or not at all; until then, what has arrived lies in `.NAME.partial` beside it.
        progress: Told whenever bytes have arrived.

    Raises:
        FolderNotEmpty: `folder` holds files already.
        DownloadUnderWay: Somebody else is downloading into it.
        DownloadDamaged: A file is damaged, or its name leads out of the folder.
    """
    total = sum(file.bytes for file in files.values())
    before = 0
    with UnfinishedFolder(folder, files) as unfinished:
        for name, file in files.items():
            await _Fetch(session, unfinished, name, file, partial(_tell, progress, before, total)).run()
            before += file.bytes
        unfinished.publish()


def _tell(progress: Progress | None, before: int, total: int, size: int) -> None:
    if progress is not None:
        progress(before + size, total)


class _Fetch:
    """One file's way here."""

    def __init__(
        self, session: Session, unfinished: UnfinishedFolder, name: str, file: Artifact, tell: Callable[[int], None]
    ) -> None:
        self._session = session
        self._unfinished = unfinished
        self._name, self._file = name, file
        self._tell = tell

    async def run(self) -> None:
        """Fetch what is missing of it until it is right."""
        part = await self._session.waiting.run(partial(self._unfinished.open, self._name))
        try:
            while True:
                self._tell(part.size)
                if part.size < self._file.bytes:
                    await self._fill(part)
                if part.is_right():
                    return
        finally:
            part.close()

    async def _fill(self, part: PartialFile) -> None:
        """Add the rest of it, over as many connections as that takes."""
        retry = Retry(self._session)
        while True:
            size = part.size
            try:
                return await self._fetch(part)
            except TROUBLE as error:
                if part.size > size:
                    retry.begin_anew()
                await retry.pause(error)

    async def _fetch(self, part: PartialFile) -> None:
        """Add what one answer brings. Where the service sends to another host, httpx leaves the key behind."""
        url = f"/v1/artifacts/{self._file.id}/content"
        async with self._session.http.stream("GET", url, headers=self._headers(part), follow_redirects=True) as answer:
            await check(answer)
            if answer.history:
                self._unfinished.remember_redirect()
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                part.start_over()
            async for chunk in answer.aiter_bytes():
                await self._session.waiting.run(partial(part.append, chunk))
                self._tell(part.size)

    def _headers(self, part: PartialFile) -> dict[str, str]:
        """Asks for the rest of it. A storage has entity tags of its own, and the hash at the end must do."""
        headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of what was made of it
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if not self._unfinished.redirected:
                headers["If-Range"] = f'"{self._file.sha256}"'
        return headers
