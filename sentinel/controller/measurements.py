"""What a controller is told: before a cycle, and after it. Plain numbers; knows no model and no thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What is known before a cycle.

    Losses are held-out and in nats per token. Groups are named by their index in the dense model.

    Attributes:
        cycle: Counted from 1.
        cycles: Of the run.
        progress: Share of the way to the target that is done.
        steps_left: Healing steps that are not yet spent.
        steps_per_cycle: Those of a cycle without a controller.
        planned: Share of the way that the spec's schedule has done after this cycle.
        dense_loss: Of the dense model.
        loss: Of the model as it is now; in the first cycle the dense model's.
        cut_loss: Right after the last cycle's cut; None in the first.
        healing_slope: Nats per token that the last quarter of the last healing won per step; None before any.
        utilisation: Layer → attention group → its share of the energy of the layer's output.
        entropy: Layer → attention group → mean entropy of its attention rows, in nats.
        removed: Layer → attention groups that are gone.
        minimum_per_layer: Attention groups that every layer keeps by the spec.
        protected_layers: Layers that lose nothing by the spec.
        may_grow: Whether exchanges, where the spec has any, are still to be tried.
    """

    cycle: int
    cycles: int
    progress: float
    steps_left: int
    steps_per_cycle: int
    planned: float
    dense_loss: float
    loss: float
    cut_loss: float | None
    healing_slope: float | None
    utilisation: Mapping[int, Mapping[int, float]]
    entropy: Mapping[int, Mapping[int, float]]
    removed: Mapping[int, int]
    minimum_per_layer: int = 1
    protected_layers: Sequence[int] = ()
    may_grow: bool = True

    @property
    def is_last(self) -> bool:
        """Whether this cycle must reach the target."""
        return self.cycle == self.cycles

    @property
    def cycles_left(self) -> int:
        """This one included."""
        return self.cycles - self.cycle + 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cycle came to.

    Attributes:
        cycle: Counted from 1.
        loss: Held-out, at the cycle's end, in nats per token.
        steps: Healing steps that it took.
    """

    cycle: int
    loss: float
    steps: int
