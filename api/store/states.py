"""The one table of a job's states and the steps between them. Drives the API, the worker and every state write."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# A job that ends by itself while a pause or a cancel is under way keeps its own end: the work is done, or the error is
# known. A pause that its worker has not come to yet can be taken back. What no worker holds fails at its deadline.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUED: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED, State.FAILED}),
        State.RUNNING: frozenset({State.QUEUED, State.PAUSING, State.CANCELLING, State.SUCCEEDED, State.FAILED}),
        State.PAUSING: frozenset({State.PAUSED, State.RUNNING, State.CANCELLING, State.SUCCEEDED, State.FAILED}),
        State.PAUSED: frozenset({State.QUEUED, State.CANCELLED, State.FAILED}),
        State.CANCELLING: frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED}),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

LEASED = frozenset({State.RUNNING, State.PAUSING, State.CANCELLING})
"""States in which a worker holds the job's lease."""

UNHELD = frozenset({State.QUEUED, State.PAUSED})
"""States with no worker, and not at an end."""


def is_terminal(state: State) -> bool:
    """Whether nothing can follow; terminal rows never change."""
    return not TRANSITIONS[state]


def allowed_from(state: State) -> list[str]:
    """Names of the states that can follow, sorted."""
    return sorted(TRANSITIONS[state])
