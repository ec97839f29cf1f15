"""A model with every candidate in it, none of which changes anything yet: what strategies look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sentinel.models.families.base import Unit
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.growth.candidates import Groups
from sentinel.pruning.pruning_module import PruningModule

# Unit → layer → what every candidate promises, in their order; higher comes first. Only the order within a unit counts.
Gains = Mapping[Unit, Mapping[int, Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a growth strategy may look at.

    Attributes:
        now: The model as it is.
        wide: The same with all candidates in, as they start: it computes the same.
        dense: The model that it was cut out of.
        candidates: Which could come.
        windows: Training tokens, (windows, sequence_length).
        seed: Of whatever a strategy draws.
    """

    now: PruningModule
    wide: PruningModule
    dense: PreTrainedModel
    candidates: Groups
    windows: torch.Tensor
    seed: int

    def places(self, unit: Unit, layer: int) -> list[int]:
        """Where the layer's candidates are in `wide`."""
        return places(self.wide, unit, layer, self.candidates[unit][layer])

    def calibration(self) -> Calibration:
        """`wide`, and the windows, for the candidates' units."""
        return Calibration(
            model=self.wide.model,
            family=self.wide.family,
            units=tuple(self.candidates),
            windows=self.windows,
            seed=self.seed,
        )


def places(module: PruningModule, unit: Unit, layer: int, groups: Sequence[int]) -> list[int]:
    """Where groups, named by their index in the dense model, are in a layer."""
    return [module.kept[unit][layer].index(group) for group in groups]
