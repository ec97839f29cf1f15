"""Which commit of a hub dataset is read. Knows nothing of what is in it."""

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # of the HTTP library it uses

from sentinel.data_spec import HubData
from sentinel.errors import DataInvalid, HubUnreachable


def commit_of(source: HubData) -> str:
    """The commit that the dataset's revision names now.

    Raises:
        DataInvalid: No such dataset or revision, or no access to it.
        HubUnreachable: The endpoint does not answer.
    """
    try:
        return HfApi().resolve_revision(source.id, revision=source.revision, repo_type="dataset").resolved
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        where = f"dataset {source.id!r} at {source.revision!r}"
        raise DataInvalid(f"The hub has no {where} that we may read.") from error
    except (TransportError, RevisionResolutionError) as error:
        raise HubUnreachable(f"The hub did not deliver dataset {source.id!r}: {error}") from error
