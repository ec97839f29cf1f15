"""What state every attention group was in at the measurements of a run's cycles. Describes; decides nothing."""

from collections.abc import Mapping, Sequence

from sentinel.models.adaptive import signals as adaptive
from sentinel.models.adaptive.states import History, Standing, Transition
from sentinel.result import Signals, State

# Changes that one message tells each with its reason; nobody reads more.
MOST_TOLD = 20


def history_of(measured: Mapping[int, Signals], dense_counts: Sequence[int]) -> History:
    """Told from all measurements so far, so that a run that goes on needs no more than its records.

    Args:
        measured: Cycle → signals; cycles that measured nothing have none.
        dense_counts: Per layer, how many attention groups the dense model has. They start as active.
    """
    history = History(
        standings={layer: {group: Standing() for group in range(count)} for layer, count in enumerate(dense_counts)}
    )
    for cycle, signals in measured.items():
        if signals:
            groups = {layer: sorted(signals["importance"].get(layer, {})) for layer in range(len(dense_counts))}
            history = history.observed(cycle, _in_order(signals, groups), groups=groups)
    return history


def states_of(history: History) -> dict[int, list[State]]:
    """Layer → state of each group, group 0 first; numbers that no group had yet are withdrawn, as what is gone."""
    return {
        layer: [row[group].state if group in row else "withdrawn" for group in range(max(row) + 1)]
        for layer, row in history.standings.items()
        if row
    }


def changes_in(history: History, cycle: int) -> str:
    """What changed its state at a cycle's measurement, and why; empty where nothing did."""
    changes = [change for change in history.timeline if change.step == cycle]
    there = [change for change in changes if not history.standing(change.layer, change.group).removed]
    sentences = [_sentence(change) for change in there[:MOST_TOLD]]
    if there[MOST_TOLD:]:
        sentences.append(f"And {len(there) - MOST_TOLD} more.")
    if removed := len(changes) - len(there):
        sentences.append(f"Withdrawn, as they are not in the model any more: {removed}.")
    return f"States of attention groups. {' '.join(sentences)}" if sentences else ""


def _sentence(change: Transition) -> str:
    return f"Layer {change.layer}, group {change.group}: {change.before} → {change.after}. {change.reason}"


def _in_order(signals: Signals, groups: Mapping[int, Sequence[int]]) -> adaptive.Signals:
    """As they were measured, with the gates that a run's model does not have."""
    rows = {
        name: {layer: tuple(of[layer][group] for group in groups[layer]) for layer in of}
        for name, of in signals.items()
    }
    gates = {layer: (1.0,) * len(of) for layer, of in groups.items()}
    return adaptive.Signals(**{"gate": gates, **rows})
