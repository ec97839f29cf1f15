"""Carries an attempt's files between its folder and the storage.

Files are written under their content hash first; they count only once the database names them. The log is there while
it grows.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from api.store.files import NewArtifact, kind_of, media_type_of
from api.store.leases import Claim
from api.store.models import ArtifactKind, ManifestFile
from api.store.storage import Storage, attempt_prefix, log_key


class Shelf:
    """Where the files of one attempt go.

    Args:
        check: Called before each file; raises to stop.
    """

    def __init__(self, storage: Storage, claim: Claim, *, check: Callable[[], None]) -> None:
        self._storage = storage
        self._prefix = attempt_prefix(claim.job_id, claim.token)
        self._log_key = log_key(claim.job_id, claim.token)
        self._check = check
        self._state_keys: frozenset[str] = frozenset()  # of the newest state: the job would go on from it

    def store_state(self, directory: Path) -> list[ManifestFile]:
        """Store a cycle's resume state; returns what `record_checkpoint` needs."""
        manifest = [self._store(path, path.relative_to(directory)) for path in _files(directory)]
        self._state_keys = frozenset(file["storage_key"] for file in manifest)
        return manifest

    def fetch(self, manifest: Sequence[ManifestFile], directory: Path) -> Path:
        """Bring stored files into `directory`, every one verified.

        Raises:
            ObjectMissing, ObjectDamaged: The storage lost or changed a file.
        """
        for file in manifest:
            self._check()
            self._storage.download(file["storage_key"], directory / file["path"], file["sha256"])
        return directory

    def store_output(self, output: Path, log: Path) -> list[NewArtifact]:
        """Store everything a reader of the finished job may download."""
        names = [path.relative_to(output) for path in _files(output)]
        kinds = [(name, kind_of(name.as_posix())) for name in names]
        artifacts = [self._artifact(output / name, name, kind) for name, kind in kinds if kind is not None]
        return [*artifacts, self._artifact(log, Path(log.name), ArtifactKind.LOG)]

    def store_log(self, log: Path) -> None:
        """Store the log as it is by now, for those who look at the attempt."""
        self._storage.put_log(log, self._log_key)

    def _artifact(self, path: Path, name: Path, kind: ArtifactKind) -> NewArtifact:
        return NewArtifact(kind=kind, media_type=media_type_of(name.as_posix()), **self._store(path, name))

    def _store(self, path: Path, name: Path) -> ManifestFile:
        self._check()
        stored = self._storage.put_file(path, self._prefix, counted_on=self._state_keys)
        return ManifestFile(path=name.as_posix(), sha256=stored.sha256, bytes=stored.bytes, storage_key=stored.key)


def _files(directory: Path) -> Iterable[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
