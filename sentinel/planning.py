"""What each cycle is to do: as the spec's schedule says, or as a controller decides on what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentinel.controller.measurements import Measurements, Outcome
from sentinel.controller.protocol import Controller
from sentinel.controller.starting import resume, start
from sentinel.grow_spec import Grow
from sentinel.heal_spec import Heal
from sentinel.prune_spec import Prune
from sentinel.pruning.schedule import progress_at
from sentinel.result import CycleRecord, DecisionRecord
from sentinel.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one cycle is to do.

    Attributes:
        before: Share of the way to the target that is done.
        progress: Share that shall be done at its end.
        prune: How to cut.
        heal: How to heal; None not at all.
        grow: What to exchange; None for nothing.
        grow_layers: Where groups may come; empty for anywhere.
        decision: The controller's, where there is one.
    """

    before: float
    progress: float
    prune: Prune
    heal: Heal | None
    grow: Grow | None
    grow_layers: Sequence[int] = ()
    decision: DecisionRecord | None = None


class Planner:
    """Plans one run's cycles.

    Args:
        spec: What is asked for.
        steps: Healing steps of a cycle by the schedule.
        model_folder: Where the model was loaded from.
        state: What `state` gave when the run was left; None where it begins.

    Raises:
        ControllerStateInvalid: The controller is to start from what the model's folder does not have.
        CheckpointInvalid: The state is damaged.
    """

    def __init__(self, spec: Spec, *, steps: int, model_folder: Path, state: dict[str, Any] | None) -> None:
        self._spec, self._steps = spec, steps
        self._controller: Controller | None = None
        if spec.controller:
            grow = spec.grow.fraction if spec.grow else 0.0
            self._controller = (
                start(spec.controller, seed=spec.seed, grow=grow, model_folder=model_folder)
                if state is None
                else resume(spec.controller, state, seed=spec.seed, grow=grow)
            )

    def plan(self, records: Sequence[CycleRecord], measure: Callable[[int, float, float], Measurements]) -> Plan:
        """Of the cycle behind those of `records`.

        Args:
            records: What the cycles before it did.
            measure: From the steps that are left, and from the progress that is done and planned, what a controller
                is told.
        """
        if self._controller is None:
            return self.scheduled(records)
        steps_left = self._steps * self._spec.prune.cycles - sum(record.healing_steps for record in records)
        done, planned = self._reached(records), self._scheduled(len(records) + 1)
        now = replace(measure(steps_left, done, planned), may_grow=not self._gave_up(records))
        return self.decided(records, self._controller.decide(now))

    def scheduled(self, records: Sequence[CycleRecord]) -> Plan:
        """By the spec alone; exchanges are not for the last cycle, behind which nothing is healed any more."""
        spec, cycle = self._spec, len(records) + 1
        return Plan(
            before=self._reached(records),
            progress=self._scheduled(cycle),
            prune=spec.prune,
            heal=self._heal(cycle),
            grow=None if self._gave_up(records) or cycle == spec.prune.cycles else spec.grow,
        )

    def decided(self, records: Sequence[CycleRecord], decision: DecisionRecord) -> Plan:
        """By a controller's decision."""
        spec, heal = self._spec, self._heal(len(records) + 1)
        protected = sorted({*spec.prune.protected_layers, *decision.protected_layers})
        return Plan(
            before=self._reached(records),
            progress=decision.progress,
            prune=spec.prune.model_copy(update={"protected_layers": protected}),
            heal=heal.model_copy(update={"steps": decision.steps, "epochs": None}) if heal and decision.steps else None,
            grow=spec.grow.model_copy(update={"fraction": decision.grow}) if spec.grow and decision.grow else None,
            grow_layers=decision.grow_layers,
            decision=decision,
        )

    def resumed(self, records: Sequence[CycleRecord], record: CycleRecord) -> Plan:
        """Of a cycle that has been cut."""
        return self.decided(records, record.decision) if record.decision else self.scheduled(records)

    def learn(self, outcome: Outcome) -> None:
        """What a cycle came to."""
        if self._controller:
            self._controller.learn(outcome)

    def state(self) -> dict[str, Any] | None:
        """What the controller has to remember, as JSON."""
        return self._controller.state() if self._controller else None

    def save(self, checkpoint: Path) -> None:
        """Write what a later job's controller can start from."""
        if self._controller:
            self._controller.save(checkpoint)

    def _heal(self, cycle: int) -> Heal | None:
        """As the spec says, but that the rate falls in the last cycle only: a cut would undo what it settles."""
        heal = self._spec.heal
        if heal is None or cycle == self._spec.prune.cycles:
            return heal
        return heal.model_copy(update={"schedule": "constant"})

    def _scheduled(self, cycle: int) -> float:
        return progress_at(cycle, cycles=self._spec.prune.cycles, schedule=self._spec.prune.schedule)

    def _reached(self, records: Sequence[CycleRecord]) -> float:
        """Share of the way that is done behind some cycles."""
        if not records:
            return 0.0
        decision = records[-1].decision
        return decision.progress if decision else self._scheduled(len(records))

    def _gave_up(self, records: Sequence[CycleRecord]) -> bool:
        """Whether so many exchanges in a row were undone that the spec wants no more, whatever cycles had none."""
        patience = self._spec.grow.patience if self._spec.grow else None
        exchanges = [record.growth for record in records if record.growth]
        if patience is None or len(exchanges) < patience:
            return False
        return not any(growth.accepted for growth in exchanges[-patience:])
