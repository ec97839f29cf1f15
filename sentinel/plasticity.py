"""Lets a model exchange groups between two cuts, and keeps the exchange only if it is worth it.

Groups grow and learn; then the model is cut back to the size that it had, by whatever is least important now, old or
new, and learns on. A copy learns as long and exchanges nothing. Both have as many parameters and have seen as much
text; the one with the lower held-out loss goes on, so that an exchange which does harm costs time and nothing else.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from sentinel.errors import LossNotFinite, SpecInvalid, TrainingDiverged
from sentinel.grow_spec import Grow
from sentinel.heal_spec import Heal
from sentinel.inputs import Inputs
from sentinel.models.evaluation import mean_loss
from sentinel.prune_spec import Prune, Target
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.consolidation import consolidate, union
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.fine_tuning.optimization import factors_of_groups
from sentinel.pruning.growth.growing import Grown, grow
from sentinel.pruning.levels import cost_for
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import GrowthRecord, MergeRecord

# A record goes through the database with every cycle; so many promises of neurons nobody reads there.
MOST_GAINS = 1000


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One exchange of groups.

    Attributes:
        inputs: The dense model and the text.
        prune: How to cut back.
        how: How to grow.
        heal: How to learn.
        seed: Of what is drawn, and of the order of the text.
        progress: Share of the way to the target that is done: the size to come back to.
        layers: Where groups may come; empty for anywhere.
    """

    inputs: Inputs
    prune: Prune
    how: Grow
    heal: Heal
    seed: int
    progress: float
    layers: Sequence[int] = ()

    def attempt(
        self, module: PruningModule, observer_after: Callable[[int], Observer]
    ) -> tuple[PruningModule, GrowthRecord] | None:
        """The module to go on with, and what happened; None where nothing can come, or nothing go for it.

        Args:
            module: Is left as it is.
            observer_after: From the exchange's steps so far to who hears of the next ones.
        """
        grown = grow(
            module,
            self.inputs.dense,
            how=self.how,
            prune=self._what_counts(),
            windows=self.inputs.calibration,
            seed=self.seed,
            layers=self.layers,
        )
        if grown is None or not self._has_a_way_back(grown.module, size=self._cost(module)):
            return None
        loss_before = self._held_out_loss(module)
        without = _copy(module)
        for half in (0, 1):
            self._learn(without, half, Observer())
        went = self._exchange(grown, size=self._cost(module), observer_after=observer_after)
        loss_without = self._held_out_loss(without)
        accepted = went.loss_after is not None and went.loss_after < loss_without
        record = GrowthRecord(
            strategy=self.how.strategy,
            grown={unit: {layer: list(g) for layer, g in layers.items()} for unit, layers in grown.groups.items()},
            removed=went.removed,
            merged=went.merged,
            gains=dict(grown.gains) if _is_readable(grown) else {},
            accepted=accepted,
            loss_before=loss_before,
            loss_grown=went.loss_grown,
            loss_after=went.loss_after,
            loss_without=loss_without,
            reason=_reason(went, loss_without),
        )
        return (grown.module if accepted else without), record

    def _exchange(self, grown: Grown, *, size: float, observer_after: Callable[[int], Observer]) -> "_Went":
        """Learn, cut back and learn on, as far as the numbers stay finite."""
        went, module = _Went(), grown.module
        try:
            self._learn(module, 0, observer_after(0), factors=self._factors(grown))
            went.loss_grown = self._held_out_loss(module)
            went.removed, went.merged = self._cut_back(module, size=size)
            self._learn(module, 1, observer_after(halves(self.how.steps)[0]))
            went.loss_after = self._held_out_loss(module)
        except (TrainingDiverged, LossNotFinite) as error:
            went.trouble = str(error)
        return went

    def _what_counts(self) -> Prune:
        """Of the units those that the target counts: of others nothing would have to go for what came."""
        cached = self.prune.target.kind == "kv_bytes"
        units = [unit for unit in self.prune.units if unit == "attention" or not cached]
        return self.prune.model_copy(update={"units": units})

    def _held_out_loss(self, module: PruningModule) -> float:
        return mean_loss(module.model, self.inputs.held_out)

    def _factors(self, grown: Grown) -> dict[nn.Parameter, Tensor]:
        module = grown.module
        return factors_of_groups(module.model, module.family, grown.places(), self.how.learning_rate_factor)

    def _learn(
        self,
        module: PruningModule,
        half: int,
        observer: Observer,
        *,
        factors: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        steps = halves(self.how.steps)[half]
        short = self.heal.model_copy(update={"steps": steps, "epochs": None, "evaluate_every": None, "patience": None})
        FineTuner(heal=short, dense=self.inputs.dense).fine_tune(
            module.model,
            self.inputs.training,
            seed=self.seed + half,
            factors=factors,
            factor_warmup=round(self.how.warmup_fraction * steps),
            observer=observer,
        )

    def _calibration(self, module: PruningModule) -> Calibration:
        return module.calibration(self.inputs.calibration, self.prune, seed=self.seed)

    def _cost(self, module: PruningModule) -> float:
        return cost_for(self.prune, self._calibration(module)).total

    def _has_a_way_back(self, module: PruningModule, *, size: float) -> bool:
        """Whether as much can go as came: it may have come where nothing may go, and the rest be at its floors."""
        prune, progress = self._way_back(size)
        try:
            module.plan(self._calibration(module), prune, progress=progress)
        except SpecInvalid:
            return False
        return True

    def _cut_back(
        self, module: PruningModule, *, size: float
    ) -> tuple[dict[str, dict[int, list[int]]], list[MergeRecord]]:
        """Remove as much as came; what went, and what of it was merged."""
        calibration, (prune, progress) = self._calibration(module), self._way_back(size)
        merging = consolidate(module, calibration, prune, progress=progress)
        selection = module.select(calibration, prune, before=merging.before, progress=merging.progress)
        removed, _ = module.cut(calibration, selection.cut, compensation=prune.compensation)
        return union(merging.removed, removed), list(merging.merged)

    def _way_back(self, size: float) -> tuple[Prune, float]:
        """How to cut back to this size, and the share of the way to that target.

        It may lie below the run's own target: a cut takes whole groups, and may have taken more than it had to.
        """
        kind = self.prune.target.kind
        if kind == "sparsity":  # its share is counted from the dense model, others' from what is left
            return self.prune, self.progress
        return self.prune.model_copy(update={"target": Target.model_validate({kind: size})}), 1.0


@dataclass
class _Went:
    """How an exchange went, as far as it did."""

    removed: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    merged: list[MergeRecord] = field(default_factory=list)
    loss_grown: float | None = None
    loss_after: float | None = None
    trouble: str = ""


def _reason(went: _Went, loss_without: float) -> str:
    if went.loss_after is None:
        return f"The exchange is undone: {went.trouble}"
    return (
        f"The exchange {'stands' if went.loss_after < loss_without else 'is undone'}: at the same size the held-out "
        f"loss is {went.loss_after:.4f} with it and {loss_without:.4f} after as many steps without it."
    )


def halves(steps: int) -> tuple[int, int]:
    """Steps before and after the cut back."""
    return steps - steps // 2, steps // 2


def _copy(module: PruningModule) -> PruningModule:
    twin = copy.copy(module)
    twin.model = copy.deepcopy(module.model)
    twin.kept = {unit: [list(groups) for groups in layers] for unit, layers in module.kept.items()}
    return twin


def _is_readable(grown: Grown) -> bool:
    return sum(len(gains) for layers in grown.gains.values() for gains in layers.values()) <= MOST_GAINS
