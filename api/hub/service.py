"""A job's checkpoint as a repository with one branch and one commit. Knows no HTTP.

Every file counts as kept in Git LFS, which names it by its sha256: that is known, and clients can verify it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.artifacts.service import of_checkpoint
from api.auth import Principal
from api.hub.refusals import EntryNotFound, RevisionNotFound
from api.hub.schemas import Lfs, ModelInfo, Sibling, TreeEntry
from api.store.jobs import get_job
from api.store.models import Artifact, Job
from api.store.storage import Storage

BRANCH = "main"
COMMIT_DIGITS = 40


@dataclass(frozen=True)
class Repository:
    """A job and its checkpoint's files by their path in it."""

    job: Job
    files: Mapping[str, Artifact]

    @cached_property
    def commit(self) -> str:
        """Follows from the files' names and contents, and from nothing else."""
        return _digest(self.files)

    def info(self) -> ModelInfo:
        """What is known of it, and the names of all files."""
        return ModelInfo(
            id=f"jobs/{self.job.id}",
            sha=self.commit,
            created_at=self.job.created_at,
            last_modified=self.job.finished_at,
            siblings=[_sibling(path, artifact) for path, artifact in self.files.items()],
        )

    def tree(self, folder: str, *, recursive: bool) -> list[TreeEntry]:
        """Folders and files in a folder; the empty one is the root.

        Raises:
            EntryNotFound: There is no such folder.
        """
        prefix = f"{folder}/" if folder else ""
        inside = {path: artifact for path, artifact in self.files.items() if path.startswith(prefix)}
        if not inside:
            raise EntryNotFound(folder, commit=self.commit)
        parents = {str(parent) for path in inside for parent in PurePosixPath(path).parents}
        folders = sorted(parent for parent in parents if parent.startswith(prefix) and parent != ".")
        entries = [self._folder(path) for path in folders] + [_file(path, inside[path]) for path in inside]
        return [entry for entry in entries if recursive or "/" not in entry.path.removeprefix(prefix)]

    def _folder(self, folder: str) -> TreeEntry:
        inside = {path: artifact for path, artifact in self.files.items() if path.startswith(f"{folder}/")}
        return TreeEntry(type="directory", path=folder, size=0, oid=_digest(inside))

    def file(self, path: str, *, storage: Storage) -> Artifact:
        """One file.

        Raises:
            EntryNotFound: There is no such file.
            ObjectMissing, ObjectDamaged: The storage has lost it, or a part; asked now, while it can still be said.
        """
        if path not in self.files:
            raise EntryNotFound(path, commit=self.commit)
        artifact = self.files[path]
        storage.check_whole(artifact.storage_key, artifact.bytes)
        return artifact


def find(session: Session, caller: Principal, job_id: str, revision: str = BRANCH) -> Repository:
    """The repository of one of the caller's jobs.

    Raises:
        JobNotFound: No such job, or somebody else's.
        NoCheckpoint, ArtifactExpired: As `of_checkpoint` says.
        RevisionNotFound: It is neither the branch nor the commit.
    """
    job = get_job(session, caller.tenant, job_id)
    repository = Repository(job, of_checkpoint(session, job))
    if revision not in (BRANCH, repository.commit):
        raise RevisionNotFound(revision)
    return repository


def _digest(files: Mapping[str, Artifact]) -> str:
    """Of what `sha256sum` would print for them."""
    lines = "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:COMMIT_DIGITS]


def _file(path: str, artifact: Artifact) -> TreeEntry:
    return TreeEntry(type="file", path=path, size=artifact.bytes, oid=_blob_id(artifact), lfs=_lfs(artifact))


def _sibling(path: str, artifact: Artifact) -> Sibling:
    return Sibling(rfilename=path, size=artifact.bytes, blob_id=_blob_id(artifact), lfs=_lfs(artifact))


def _lfs(artifact: Artifact) -> Lfs:
    size = len(_pointer(artifact))
    return Lfs(oid=artifact.sha256, sha256=artifact.sha256, size=artifact.bytes, pointer_size=size)


def _blob_id(artifact: Artifact) -> str:
    """Git's own id of the pointer, which is what Git would keep."""
    pointer = _pointer(artifact)
    return hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer, usedforsecurity=False).hexdigest()


def _pointer(artifact: Artifact) -> bytes:
    """What Git keeps of a file whose content is in Git LFS (git-lfs/docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{artifact.sha256}\nsize {artifact.bytes}\n".encode()
