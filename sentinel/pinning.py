"""Which commits of the hub a run reads: a branch or tag is resolved once, and then only the commit is asked for.

Knows the two sections of a spec that can name a repository; downloads nothing.
"""

from collections.abc import Mapping

from sentinel.data.loaders import hub as datasets
from sentinel.data_spec import HubData
from sentinel.models.loaders import hub as models
from sentinel.spec import HubModel, Spec
from sentinel.utils.checkpoints.cycle_state import Source


def resolve_commits(spec: Spec, *, known: Mapping[Source, str]) -> dict[Source, str]:
    """The commits that the spec's revisions name now, or named when an earlier attempt at the run asked.

    Raises:
        ModelNotFound, DataInvalid, HubUnreachable: As the two `commit_of` say.
    """
    commits = dict(known)
    if isinstance(spec.model, HubModel) and "model" not in commits:
        commits["model"] = models.commit_of(spec.model)
    if isinstance(spec.data, HubData) and "data" not in commits:
        commits["data"] = datasets.commit_of(spec.data)
    return commits


def pin(spec: Spec, commits: Mapping[Source, str]) -> Spec:
    """The spec with its revisions replaced."""
    sections = {str(name): getattr(spec, name).model_copy(update={"revision": at}) for name, at in commits.items()}
    return spec.model_copy(update=sections)
