"""What a check is, and what it finds. Knows nothing of what is checked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from api.settings import Settings
from sentinel.utils.logs import redacted


class Status(StrEnum):
    """How a part is; a warning lets the service keep its promises."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class Finding(NamedTuple):
    """What was seen of one part, and what to do next unless all is well."""

    name: str
    status: Status
    seen: str
    next_step: str | None = None


class Seen(NamedTuple):
    """What a look at a part tells."""

    status: Status
    text: str
    next_step: str | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part to look at.

    Attributes:
        name: Of the part.
        look: Says what it sees, or raises: then the part is broken.
        next_step: What to do when `look` raises.
        needs: The check without whose success this one can tell nothing.
    """

    name: str
    look: Callable[[Settings], Seen]
    next_step: str = "Report this: the check itself has failed."
    needs: str | None = None


def examine(settings: Settings, checks: Sequence[Check]) -> Iterator[Finding]:
    """Make every check whose need is met, one after the other; what one of them raises ends none of the others."""
    broken = set()
    for check in checks:
        if check.needs in broken:
            broken.add(check.name)  # for what needs this one in turn
            continue
        try:
            seen = check.look(settings)
        except Exception as error:
            seen = Seen(Status.BROKEN, _in_one_line(error), check.next_step)
        if seen.status is Status.BROKEN:
            broken.add(check.name)
        yield Finding(check.name, seen.status, redacted(seen.text), seen.next_step)


def _in_one_line(error: Exception) -> str:
    """Drivers add hints and links below."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
