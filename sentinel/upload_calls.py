"""What can be asked of a service about uploads."""

from collections.abc import AsyncGenerator
from pathlib import Path

from sentinel.downloading import Progress
from sentinel.endpoint import path_of
from sentinel.replies import Page, Upload, UploadSummary
from sentinel.transport import Calls
from sentinel.uploading import files_of_a_model, files_of_a_text, upload


class UploadCalls(Calls):
    """Models and texts of one's own."""

    async def upload_model(self, path: Path, *, name: str | None = None, progress: Progress | None = None) -> Upload:
        """Bring a model to the service, to be named in specs as `{source: upload, id: …}`.

        The same files and name again give the same upload, and what of it is there already is not sent again: so
        an upload that was cut off goes on when it is asked for again.

        Args:
            path: A folder that `from_pretrained` loads, or a .tar or .zip of one.
            name: For people.
            progress: Told how many bytes of how many are sent.

        Raises:
            NothingToUpload: There are no files of a model.
            UploadRefused: The service has found before that these files are no model.
            FileChanged: A file has become shorter while it was sent.
            ServiceRefused: The service does not take it.
        """
        return await upload(self._session, "model", files_of_a_model(path), name=name, progress=progress)

    async def upload_text(self, path: Path, *, name: str | None = None, progress: Progress | None = None) -> Upload:
        """Bring a .txt, .jsonl, .json, .csv or .parquet file to the service; otherwise as `upload_model`."""
        return await upload(self._session, "text", files_of_a_text(path), name=name, progress=progress)

    async def get_upload(self, upload_id: str) -> Upload:
        """One upload with its files."""
        return await self._session.read(Upload, path_of("uploads", upload_id))

    def list_uploads(self, *, page_size: int | None = None) -> AsyncGenerator[UploadSummary, None]:
        """Uploads, newest first, fetched page by page."""
        return self._session.pages(Page[UploadSummary], "/v1/uploads", limit=page_size)

    async def delete_upload(self, upload_id: str) -> None:
        """Delete an upload.

        Raises:
            ServiceRefused: A job that has not ended names it.
        """
        await self._session.remove(path_of("uploads", upload_id))
