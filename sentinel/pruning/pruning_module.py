"""A model whose groups can be scored, selected and cut.

Remembers which of the dense model's groups are left. Knows nothing of cycles, healing or files.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from sentinel.models.families.base import UNITS, Family, Unit
from sentinel.models.optimized.insertion import Grown, insert_groups, origin
from sentinel.prune_spec import CompensationName, Prune
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.compensation import Cut
from sentinel.pruning.levels import Demand, choice_of, cost_for, goals_of, units_of
from sentinel.pruning.repair import cut_and_compensate
from sentinel.pruning.search import Space, refine
from sentinel.pruning.selection import check_reachable, even_levels, select
from sentinel.pruning.strategies import rank_groups
from sentinel.pruning.trial import Trial, as_cut
from sentinel.result import LayerCompensation


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is to go, and what that promises.

    Attributes:
        cut: Unit → layer → groups, by their index in the layer as it is now.
        goal: What the cost had to fall to, in the unit of the target.
        predicted: What the cost is predicted to be after the cut.
        evaluations: Candidates that the search measured.
    """

    cut: Cut
    goal: float
    predicted: float
    evaluations: int


class PruningModule:
    """Owns a model that is being pruned.

    Attributes:
        model: The model, cut in place.
        family: Where its groups live.
        kept: Unit → per layer, the indices of the dense model's groups that are left, ascending; behind them those
            that were grown beyond its number.
        dense_counts: Unit → groups per layer of the dense model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        *,
        kept: Mapping[Unit, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        """Take over a dense `model`; with `kept`, give it those groups, the shapes of grown ones included."""
        self.model = model
        self.family = family
        self.dense_counts = {unit: family.counts(model, unit) for unit in UNITS}
        self.kept = {unit: [list(range(count)) for count in counts] for unit, counts in self.dense_counts.items()}
        for unit, layers in (kept or {}).items():
            for layer, groups in enumerate(layers):
                dense_count = self.dense_counts[unit][layer]
                if list(groups) != list(range(dense_count)):
                    family.keep_groups(model, layer, unit, [origin(group, dense_count) for group in groups])
            self.kept[unit] = [list(groups) for groups in layers]

    def with_groups(self, dense: PreTrainedModel, groups: Grown) -> "PruningModule":
        """Another module that has these groups, too; their output slices are zero.

        Args:
            dense: The model that this one was cut out of.
            groups: Unit → layer → groups, as `insert_groups` names them.
        """
        grown = copy.copy(self)
        grown.model, grown.kept = insert_groups(self.model, dense, self.family, kept=self.kept, grown=groups)
        return grown

    @property
    def sparsity(self) -> dict[Unit, float]:
        """Share of the dense model's groups that is gone, per unit."""
        return {
            unit: 1 - sum(map(len, self.kept[unit])) / sum(counts) if any(counts) else 0.0
            for unit, counts in self.dense_counts.items()
        }

    @property
    def removed(self) -> dict[Unit, dict[int, list[int]]]:
        """Unit → layer → indices of the dense model's groups that are gone; whole layers are absent."""
        return {unit: self._gone(unit) for unit in UNITS}

    def calibration(self, windows: torch.Tensor, prune: Prune, *, seed: int) -> Calibration:
        """What the groups that `prune` may remove are judged on."""
        return Calibration(
            model=self.model, family=self.family, units=units_of(prune.units), windows=windows, seed=seed
        )

    def demand(self, calibration: Calibration, prune: Prune, *, before: float = 0.0, progress: float = 1.0) -> Demand:
        """What this model may lose and what has to go, with the arguments of `select`."""
        sites, cost = calibration.sites(), cost_for(prune, calibration)
        choices = [
            choice_of(prune, site, dense_count=self.dense_counts[site.unit][site.layer], cost=cost) for site in sites
        ]
        emptied = self._emptied(calibration)
        goals = goals_of(prune, sites, choices, cost, emptied=emptied, before=before, progress=progress)
        return Demand(sites=sites, choices=choices, goals=goals, cost=cost)

    def select(
        self, calibration: Calibration, prune: Prune, *, before: float = 0.0, progress: float = 1.0
    ) -> Selection:
        """Choose which groups to remove.

        Args:
            calibration: The model and its windows.
            prune: What to remove, by which score and to which target.
            before: How much of the way to the target is done, 0 to 1.
            progress: How much shall be done after this cut.

        Raises:
            SpecInvalid: The target cannot be reached.
        """
        rankings = rank_groups(calibration, prune.strategy, mix=prune.mix)
        demand = self.demand(calibration, prune, before=before, progress=progress)
        sites, choices, goals = demand.sites, demand.choices, demand.goals
        removed: list[Sequence[int]] = [() for _ in sites]
        for goal in goals:
            chosen = select(
                [rankings[i] for i in goal.sites],
                [choices[i] for i in goal.sites],
                goal.needed,
                allocation=prune.allocation,
            )
            for index, groups in zip(goal.sites, chosen, strict=True):
                removed[index] = groups
        evaluations = 0
        if prune.search:
            trial = Trial(_few(calibration, prune.search.windows), compensation=prune.compensation)
            evaluations = prune.search.evaluations
            even = prune.allocation == "uniform"
            space = Space(rankings, choices, goals, evaluations=evaluations, even=even)
            removed = list(refine(trial, space, removed, evaluations=evaluations))
            evaluations = trial.evaluations
        saved = sum(choice.saving(len(groups)) for choice, groups in zip(choices, removed, strict=True))
        return Selection(
            cut=as_cut(sites, removed),
            goal=demand.goal,
            predicted=demand.cost.total - saved,
            evaluations=evaluations,
        )

    def plan(self, calibration: Calibration, prune: Prune, *, progress: float = 1.0) -> dict[Unit, list[int]]:
        """Groups per unit and layer that even counts would leave, found without any score.

        Args:
            calibration: The model and its windows.
            prune: What to remove, and to which target.
            progress: How much of the way to it shall be done.

        Raises:
            SpecInvalid: The target cannot be reached.
        """
        demand = self.demand(calibration, prune, progress=progress)
        left = {unit: list(map(len, layers)) for unit, layers in self.kept.items()}
        for goal in demand.goals:
            some = [demand.choices[i] for i in goal.sites]
            check_reachable(some, goal.needed)
            for index, level in zip(goal.sites, even_levels(some, goal.needed), strict=True):
                site = demand.sites[index]
                left[site.unit][site.layer] -= demand.choices[index].levels[level]
        return left

    def _emptied(self, calibration: Calibration) -> int:
        """Sites of the calibration's units that have lost everything."""
        layers = [
            pair for unit in calibration.units for pair in zip(self.dense_counts[unit], self.kept[unit], strict=True)
        ]
        return sum(dense > 0 and not groups for dense, groups in layers)

    def cut(
        self, calibration: Calibration, cut: Cut, *, compensation: CompensationName | None
    ) -> tuple[dict[Unit, dict[int, list[int]]], list[LayerCompensation]]:
        """Remove groups physically and repair what is left, as `compensation` says.

        Args:
            calibration: This module's model, and the windows it is repaired on.
            cut: Unit → layer → groups, by their index in the layer as it is now.
            compensation: How; None changes nothing else.

        Returns:
            The same groups by their indices in the dense model, and a record per refitted projection.
        """
        records = cut_and_compensate(calibration, cut, compensation=compensation)
        gone = {
            unit: {layer: self._forget(unit, layer, groups) for layer, groups in layers.items()}
            for unit, layers in cut.items()
        }
        return gone, records

    def _forget(self, unit: Unit, layer: int, groups: Sequence[int]) -> list[int]:
        before, chosen = self.kept[unit][layer], set(groups)
        self.kept[unit][layer] = [group for position, group in enumerate(before) if position not in chosen]
        return [before[position] for position in sorted(chosen)]

    def _gone(self, unit: Unit) -> dict[int, list[int]]:
        layers = enumerate(zip(self.dense_counts[unit], self.kept[unit], strict=True))
        gone = {layer: sorted(set(range(dense)) - set(groups)) for layer, (dense, groups) in layers}
        return {layer: groups for layer, groups in gone.items() if groups}


def _few(calibration: Calibration, windows: int) -> Calibration:
    return replace(calibration, windows=calibration.windows[:windows])
