"""Carries an attempt's files between its folder and the storage.

Knows which files of a finished experiment become which artifact. Files are written under
their content hash first; they count only once the database names them.
"""

import mimetypes
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from api.store.leases import Claim, NewArtifact
from api.store.models import ArtifactKind, ManifestFile
from api.store.storage import Storage, attempt_prefix

MEDIA_TYPES = {".safetensors": "application/octet-stream", ".jsonl": "application/jsonl", ".log": "text/plain"}
KINDS = {"result.json": ArtifactKind.RESULT, "metrics.jsonl": ArtifactKind.METRICS}


class Shelf:
    """Where the files of one attempt go.

    Args:
        check: Called before each file; raises to stop.
    """

    def __init__(self, storage: Storage, claim: Claim, *, check: Callable[[], None]) -> None:
        self._storage = storage
        self._prefix = attempt_prefix(claim.job_id, claim.token)
        self._check = check

    def store_state(self, directory: Path) -> list[ManifestFile]:
        """Store a cycle's resume state; returns what `record_checkpoint` needs."""
        return [self._store(path, path.relative_to(directory)) for path in _files(directory)]

    def fetch_state(self, manifest: Sequence[ManifestFile], directory: Path) -> Path:
        """Bring a resume state back into `directory`, every file verified.

        Raises:
            ObjectMissing, ObjectDamaged: The storage lost or changed a file.
        """
        for file in manifest:
            self._check()
            self._storage.download(file["storage_key"], directory / file["path"], file["sha256"])
        return directory

    def store_output(self, output: Path, log: Path) -> list[NewArtifact]:
        """Store everything a reader of the finished job may download."""
        published = [path for path in _files(output) if _kind(path.relative_to(output)) is not None]
        artifacts = [self._artifact(path, path.relative_to(output)) for path in published]
        return [*artifacts, self._artifact(log, Path(log.name))]

    def _artifact(self, path: Path, name: Path) -> NewArtifact:
        kind = _kind(name) or ArtifactKind.LOG
        return NewArtifact(kind=kind, media_type=_media_type(name), **self._store(path, name))

    def _store(self, path: Path, name: Path) -> ManifestFile:
        self._check()
        stored = self._storage.put_file(path, self._prefix)
        return ManifestFile(path=name.as_posix(), sha256=stored.sha256, bytes=stored.bytes, storage_key=stored.key)


def _files(directory: Path) -> Iterable[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _kind(name: Path) -> ArtifactKind | None:
    """The kind by place: `checkpoint/…`, `plots/…`, `result.json`, `metrics.jsonl`; others stay unpublished."""
    if len(name.parts) == 1:
        return KINDS.get(name.name)
    return {"checkpoint": ArtifactKind.CHECKPOINT, "plots": ArtifactKind.PLOT}.get(name.parts[0])


def _media_type(name: Path) -> str:
    return MEDIA_TYPES.get(name.suffix) or mimetypes.guess_type(name.name)[0] or "application/octet-stream"
