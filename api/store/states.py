"""The one table of a job's states and the steps between them. Drives the API, the worker and every state write."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# A job that ends by itself while a cancel is under way keeps its own end: the work is done, or the error is known.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
        State.RUNNING: frozenset({State.QUEUED, State.CANCELLING, State.SUCCEEDED, State.FAILED}),
        State.CANCELLING: frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED}),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

LEASED = frozenset({State.RUNNING, State.CANCELLING})
"""States in which a worker holds the job's lease."""


def is_terminal(state: State) -> bool:
    """Whether nothing can follow; terminal rows never change."""
    return not TRANSITIONS[state]


def allowed_from(state: State) -> list[str]:
    """Names of the states that can follow, sorted."""
    return sorted(TRANSITIONS[state])
