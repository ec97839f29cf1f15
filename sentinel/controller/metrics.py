"""What a controller decided and what came of it, as numbers to draw: series while a run lasts, rows once it is over."""

from collections.abc import Sequence

from sentinel.result import CycleRecord, DecisionRecord


def series(decision: DecisionRecord) -> dict[str, float]:
    """Name → number of one decision, each a metric of the run."""
    return {
        "controller_progress": decision.progress,
        "controller_steps": decision.steps,
        "controller_grow": decision.grow,
    }


def rows(cycles: Sequence[CycleRecord]) -> list[dict[str, str | int | float]]:
    """A row for every cycle that was decided, flat enough for CSV; empty where a column does not apply to it.

    What was decided comes first, then what it came to (losses in nats per token), then what it was decided on.
    """
    decided = [(cycle, cycle.decision) for cycle in cycles if cycle.decision]
    grounds = dict.fromkeys(name for _, decision in decided for name in decision.measurements)
    return [
        {
            "cycle": cycle.cycle,
            "action": decision.action,
            "progress": decision.progress,
            "grow": decision.grow,
            "steps": decision.steps,
            "protected_layers": " ".join(map(str, decision.protected_layers)),
            "grow_layers": " ".join(map(str, decision.grow_layers)),
            "loss_before_healing": cycle.loss_before_healing,
            "loss": cycle.loss,
            "growth_accepted": "" if cycle.growth is None else int(cycle.growth.accepted),
            **{name: decision.measurements.get(name, "") for name in grounds},
            "reason": decision.reason,
        }
        for cycle, decision in decided
    ]
