"""Snapshots from the Hugging Face Hub, or from any endpoint that speaks its protocol (`HF_ENDPOINT`).

Takes all files from the one commit that the revision names, and of them weights, configs and
tokenizer files only.
With `HF_HUB_OFFLINE` set, what was downloaded before is all there is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # of the HTTP library it uses

from sentinel.errors import HubUnreachable, ModelNotFound
from sentinel.models.loaders.checks import check_weight_names
from sentinel.spec import HubModel

# Not `*.safetensors`: some repositories hold the same weights once more under another name.
_WANTED = ["model*.safetensors", "*.json", "*.txt", "*.model"]
_SUBFOLDERS = ["*/*"]


def commit_of(source: HubModel) -> str:
    """The commit that the model's revision names now.

    Raises:
        ModelNotFound, HubUnreachable: As `download` says.
    """
    with _telling(source):
        return HfApi().resolve_revision(source.id, revision=source.revision).resolved


def download(source: HubModel) -> Path:
    """The local snapshot of the model at the commit that its revision names now.

    Raises:
        ModelNotFound: No such repository or revision, or no access to it.
        ModelUnsafe: The repository has pickled weights only; nothing was downloaded.
        HubUnreachable: The endpoint does not answer.
    """
    with _telling(source):
        revision = HfApi().resolve_revision(source.id, revision=source.revision)
        if not is_offline_mode():
            _check_files(source.id, revision.resolved)
        return Path(
            snapshot_download(source.id, revision=revision, allow_patterns=_WANTED, ignore_patterns=_SUBFOLDERS)
        )


@contextmanager
def _telling(source: HubModel) -> Iterator[None]:
    """What the hub's client raises, in words of ours."""
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ModelNotFound(f"The hub has no model {source.id!r} at {source.revision!r} that we may read.") from error
    except (TransportError, LocalEntryNotFoundError, RevisionResolutionError) as error:
        raise HubUnreachable(f"The hub did not deliver {source.id!r}: {error}") from error


def _check_files(repository: str, commit: str) -> None:
    info = HfApi().model_info(repository, revision=commit)
    check_weight_names(file.rfilename for file in info.siblings or () if "/" not in file.rfilename)
