"""What clients of the Hub's protocol may not find. What else they can be refused is in `api.refusals`."""

from sentinel.errors import Fault, SentinelError


class RepositoryNotFound(SentinelError):
    """No repository has the name."""

    code = "repository_not_found"
    fault = Fault.USER
    next_step = "Name a job's model as `jobs/<job id>`; other models and datasets are on another hub."

    def __init__(self) -> None:
        super().__init__("This hub has the models of jobs and nothing else.")


class RevisionNotFound(SentinelError):
    """The repository has no such branch, tag or commit."""

    code = "revision_not_found"
    fault = Fault.USER
    next_step = "Ask for `main`, or for the commit that the model's info names."

    def __init__(self, revision: str) -> None:
        super().__init__(f"There is no revision {revision!r}.")


class EntryNotFound(SentinelError):
    """The repository has no such file or folder.

    Attributes:
        commit: Where it was looked for.
    """

    code = "entry_not_found"
    fault = Fault.USER
    next_step = "Look at the model's list of files."

    def __init__(self, path: str, *, commit: str) -> None:
        super().__init__(f"There is no {path!r}.")
        self.commit = commit
