"""Brings the files of a checkpoint into a folder, or nothing.

Trusts neither the service nor the storage that it may redirect to: a file is written inside the folder only, must have
its announced hash, and the folder appears only when all of them are there. The API key stays with the service.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx

from sentinel.errors import SentinelError
from sentinel.replies import Artifact
from sentinel.transport import check, patiently


class DownloadDamaged(SentinelError):
    """What arrived is not what the service announced."""

    code = "download_damaged"
    next_step = "Download again; if it stays so, the service's storage is damaged."


def download(http: httpx.Client, files: Mapping[str, Artifact], folder: Path, *, patience_s: float) -> None:
    """Fetch every file into `folder`, which must hold nothing yet.

    Args:
        http: Talks to the service, and carries the key.
        files: Name in the folder → what the service announced.
        folder: Appears complete or not at all.
        patience_s: How long each file is tried again while nothing answers.

    Raises:
        DownloadDamaged: A file is damaged, or its name leads out of the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, file in files.items():
            target = _inside(unfinished, name)
            patiently(partial(_fetch, http, file, target), patience_s=patience_s)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _inside(folder: Path, name: str) -> Path:
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise DownloadDamaged(f"The service announced {name!r}, which is no file of a checkpoint.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _fetch(http: httpx.Client, file: Artifact, target: Path) -> None:
    """Write one file. Where the service sends to another host, httpx leaves the key behind."""
    digest = hashlib.sha256()
    with (
        http.stream("GET", f"/v1/artifacts/{file.id}/content", follow_redirects=True) as answer,
        target.open("wb") as out,
    ):
        check(answer)
        for chunk in answer.iter_bytes():
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise DownloadDamaged(f"The file {file.path!r} does not have its announced sha256.")
