"""Which commits of the hub a run reads: a branch or tag is resolved once, and then only the commit is asked for.

Knows the sections of a spec that can name a repository; downloads nothing.
"""

from collections.abc import Mapping

from sentinel.data.loaders import hub as datasets
from sentinel.data_spec import HubData
from sentinel.models.loaders import hub as models
from sentinel.spec import HubModel, Spec


def resolve_commits(spec: Spec, *, known: Mapping[str, str]) -> dict[str, str]:
    """The commits that the spec's revisions name now, or named when an earlier attempt at the run asked.

    Returns:
        By the section that names a repository: `model`, `data`, or `domains/NAME`.

    Raises:
        ModelNotFound, DataInvalid, HubUnreachable: As the two `commit_of` say.
    """
    return {place: known.get(place) or _commit_of(section) for place, section in _of_the_hub(spec).items()}


def pin(spec: Spec, commits: Mapping[str, str]) -> Spec:
    """The spec with its revisions replaced."""
    pinned = {
        place: section.model_copy(update={"revision": commits[place]}) for place, section in _of_the_hub(spec).items()
    }
    evaluate = spec.evaluate
    if evaluate.stress:
        domains = {name: pinned.pop(_place(name), text) for name, text in evaluate.domains.items()}
        stress = evaluate.stress.model_copy(update={"domains": domains})
        evaluate = evaluate.model_copy(update={"stress": stress})
    return spec.model_copy(update={**pinned, "evaluate": evaluate})


def _of_the_hub(spec: Spec) -> dict[str, HubModel | HubData]:
    domains = {_place(name): text for name, text in spec.evaluate.domains.items()}
    sections = {"model": spec.model, "data": spec.data, **domains}
    return {place: section for place, section in sections.items() if isinstance(section, HubModel | HubData)}


def _place(domain: str) -> str:
    return f"domains/{domain}"


def _commit_of(section: HubModel | HubData) -> str:
    return models.commit_of(section) if isinstance(section, HubModel) else datasets.commit_of(section)
