"""One file's bytes, from the request into the storage; with the last one, the upload is checked and can be used.

Bytes go to a file of this host first, so that only what has proved right is stored. Each step is a short transaction
of its own, and each can be taken again: a request that is cut off leaves an upload that waits for the same file.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from anyio import to_thread
from starlette.requests import ClientDisconnect

from api.auth import Principal
from api.refusals import ArchiveRefused, FileMismatch
from api.resources import Resources
from api.store import uploads as store
from api.store.errors import UploadNotReady
from api.store.models import ManifestFile, UploadKind, UploadState
from api.store.uploads import DeclaredFile
from api.stored_models import shape_of
from api.uploads import service
from api.uploads.contents import is_archive, suffix_of
from api.uploads.schemas import UploadView
from api.uploads.spool import Spooled, spool_of
from api.uploads.unpacking import Limits, Member, members_of
from sentinel.errors import Fault, SentinelError

PIECE_BYTES = 1024 * 1024  # that are hashed and written at once, away from the event loop


class _Awaited(NamedTuple):
    """A file that is to come, and whether it is an archive."""

    file: DeclaredFile
    is_archive: bool


class Receiver:
    """Takes the files of one caller's upload.

    Every method but `receive` blocks.
    """

    def __init__(self, resources: Resources, caller: Principal, upload_id: str) -> None:
        self._settings = resources.settings
        self._database = resources.database
        self._storage = resources.storage
        self._storing = resources.storing
        self._spool = spool_of(self._settings)
        self._tenant = caller.tenant
        self._caller = caller
        self._id = upload_id

    async def receive(self, number: int, body: AsyncIterator[bytes]) -> UploadView:
        """Take one file; the upload as it is then.

        Raises:
            FileMismatch: The bytes are not those that were declared.
            SpaceExhausted: The disk or the storage is full.
            UploadNotReady: The upload was refused before.
            ArchiveRefused, ModelInvalid, ModelNotFound: It is refused now: it is complete, and no model.
        """
        awaited = await to_thread.run_sync(self._awaited, number)
        if awaited is not None:
            with self._spool.room(awaited.file.bytes) as spooled:
                try:
                    await _write(body, spooled, awaited.file)
                    await to_thread.run_sync(self._keep, number, awaited, spooled, limiter=self._storing)
                finally:
                    # Here and not by closing it: to give back gigabytes takes a disk a while.
                    await to_thread.run_sync(spooled.file.truncate, 0)
        return await to_thread.run_sync(self._close_if_complete)

    def _awaited(self, number: int) -> _Awaited | None:
        """What is to come under a number; None if it is here."""
        with self._database.reading() as session:
            upload = store.get_upload(session, self._tenant, self._id)
            if upload.state == UploadState.REFUSED:
                raise UploadNotReady(self._id, upload.state)
            file = store.get_file(session, self._id, number)
            if file.storage_key is not None:
                return None
            names = [each.path for each in store.list_files(session, self._id)]
            return _Awaited(DeclaredFile(file.path, file.bytes, file.sha256), is_archive(upload.kind, names))

    def _keep(self, number: int, awaited: _Awaited, spooled: Spooled) -> None:
        if awaited.is_archive:
            self._unpack(spooled, is_zip=suffix_of(awaited.file.path) == ".zip")
            return
        stored = self._storage.put_file(spooled.path, store.upload_prefix(self._id))
        with self._database.transaction() as session:
            store.record_file(session, self._tenant, self._id, number, stored.key)

    def _unpack(self, spooled: Spooled, *, is_zip: bool) -> None:
        settings = self._settings
        limits = Limits(settings.max_upload_files, settings.max_upload_file_bytes, settings.max_upload_bytes)
        try:
            members = members_of(spooled.file, is_zip=is_zip, limits=limits)
            files = [self._store_member(member) for member in members]
        except ArchiveRefused as refused:
            self._close(refused)
            raise
        with self._database.transaction() as session:
            limit = settings.max_tenant_upload_bytes
            store.replace_archive(session, self._tenant, self._id, files, limit=limit)

    def _store_member(self, member: Member) -> ManifestFile:
        with self._spool.room(member.size) as spooled:
            for chunk in member.chunks():
                spooled.file.write(chunk)
            spooled.file.flush()
            stored = self._storage.put_file(spooled.path, store.upload_prefix(self._id))
        return ManifestFile(path=member.path, sha256=stored.sha256, bytes=stored.bytes, storage_key=stored.key)

    def _close_if_complete(self) -> UploadView:
        """Check what is complete; several requests may do so at once, and find the same."""
        with self._database.reading() as session:
            upload = store.get_upload(session, self._tenant, self._id)
            files = store.manifest_of(session, self._id)
            if upload.state != UploadState.OPEN or files is None:
                return service.show(session, self._caller, self._id)
        if upload.kind == UploadKind.MODEL:
            try:
                shape_of(self._storage, files, self._settings.model_limits)
            except SentinelError as refused:
                if refused.fault is Fault.USER:  # and not the storage's
                    self._close(refused)
                raise
        return self._close(None)

    def _close(self, reason: SentinelError | None) -> UploadView:
        with self._database.transaction() as session:
            store.close(session, self._tenant, self._id, error=None if reason is None else reason.as_dict())
            return service.show(session, self._caller, self._id)


async def _write(body: AsyncIterator[bytes], spooled: Spooled, declared: DeclaredFile) -> None:
    """Write a body to a file, and see that it is what was declared."""
    digest, size = hashlib.sha256(), 0

    def take(piece: bytes) -> None:
        digest.update(piece)
        spooled.file.write(piece)

    try:
        async for piece in _pieces(body):
            size += len(piece)
            if size > declared.bytes:
                raise FileMismatch(f"{declared.path} has more than the {declared.bytes} bytes that were declared.")
            await to_thread.run_sync(take, piece)
    except ClientDisconnect as gone:
        raise FileMismatch(f"{declared.path} broke off after {size} of {declared.bytes} bytes.") from gone
    await to_thread.run_sync(spooled.file.flush)
    if size < declared.bytes:
        raise FileMismatch(f"{declared.path} has {size} bytes, not the {declared.bytes} that were declared.")
    if digest.hexdigest() != declared.sha256:
        raise FileMismatch(f"{declared.path} has sha256 {digest.hexdigest()}, not the one that was declared.")


async def _pieces(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces."""
    gathered = bytearray()
    async for chunk in body:
        gathered += chunk
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)
