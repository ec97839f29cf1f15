"""A model whose groups can be scored, selected and cut.

Remembers which of the dense model's groups are left. Knows nothing of cycles, healing or files.
"""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from sentinel.models.families.base import Family, Site, output_bias, output_weight, set_output
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.calibration import Calibration, LayerwisePass, watch_inputs
from sentinel.pruning.compensation import MomentAccumulator, Refit, refit
from sentinel.pruning.selection import Allocation, Budget, select_groups
from sentinel.pruning.strategies import STRATEGIES
from sentinel.result import LayerCompensation
from sentinel.spec import StrategyName


class PruningModule:
    """Owns a model that is being pruned.

    Attributes:
        model: The model, cut in place.
        family: Where its groups live.
        kept: Per layer, the indices of the dense model's groups that are left, ascending.
        dense_counts: Groups per layer of the dense model.
    """

    def __init__(self, model: PreTrainedModel, family: Family, *, kept: Sequence[Sequence[int]] | None = None) -> None:
        """Take over a dense `model`; with `kept`, cut it down to those groups."""
        self.model = model
        self.family = family
        self.dense_counts = tuple(family.counts(model))
        self.kept = [list(range(count)) for count in self.dense_counts]
        if kept is not None:
            for layer, groups in enumerate(kept):
                family.keep_groups(model, layer, groups)
            self.kept = [list(groups) for groups in kept]

    @property
    def counts(self) -> list[int]:
        """Groups per layer now."""
        return [len(groups) for groups in self.kept]

    @property
    def sparsity(self) -> float:
        """Share of the dense model's groups that is gone."""
        return 1 - sum(self.counts) / sum(self.dense_counts)

    @property
    def removed(self) -> dict[int, list[int]]:
        """Layer → indices of the dense model's groups that are gone; whole layers are absent."""
        gone = {
            layer: sorted(set(range(dense)) - set(groups))
            for layer, (dense, groups) in enumerate(zip(self.dense_counts, self.kept, strict=True))
        }
        return {layer: groups for layer, groups in gone.items() if groups}

    def select(
        self,
        windows: torch.Tensor,
        *,
        strategy: StrategyName,
        sparsity: float,
        allocation: Allocation,
        minimum_per_layer: int,
        seed: int,
    ) -> dict[int, list[int]]:
        """Score all groups on `windows` and choose which to remove so that `sparsity` is reached.

        Returns:
            layer → positions among the groups that the layer has now.
        """
        calibration = Calibration(model=self.model, family=self.family, windows=windows, seed=seed)
        budget = Budget(
            dense_counts=self.dense_counts,
            counts=self.counts,
            sparsity=sparsity,
            minimum_per_layer=minimum_per_layer,
        )
        return select_groups(STRATEGIES[strategy](calibration), budget, allocation=allocation)

    def cut(self, selection: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
        """Remove groups physically.

        Args:
            selection: layer → positions among the groups that the layer has now.

        Returns:
            The same groups by their indices in the dense model.
        """
        return {layer: self._cut_layer(layer, groups) for layer, groups in selection.items()}

    def cut_and_compensate(
        self, selection: Mapping[int, Sequence[int]], windows: torch.Tensor
    ) -> tuple[dict[int, list[int]], list[LayerCompensation]]:
        """Remove groups and refit each output projection by least squares.

        Goes from the first layer to the last; every layer is refitted on what the already cut
        layers before it produce for `windows`.
        """
        calibration = Calibration(model=self.model, family=self.family, windows=windows, seed=0)
        layerwise = LayerwisePass(self.model, self.family.layers(self.model), calibration.batches())
        removed, records = {}, []
        for site in self.family.sites(self.model):
            if site.layer in selection:
                repair = self._refit_layer(site, selection[site.layer], layerwise)
                removed[site.layer] = self._cut_layer(site.layer, selection[site.layer])
                self._write(site.layer, repair)
                records.append(
                    LayerCompensation(
                        layer=site.layer, error_before=repair.error_before, error_after=repair.error_after
                    )
                )
            layerwise.advance(site.layer)
        return removed, records

    def _refit_layer(self, site: Site, groups: Sequence[int], layerwise: LayerwisePass) -> Refit:
        weight = output_weight(site)
        statistics = MomentAccumulator(weight.shape[1], device=weight.device)
        handle = watch_inputs(site.output, statistics.add)
        try:
            layerwise.run(site.layer)
        finally:
            handle.remove()
        kept = torch.ones(site.num_groups, dtype=torch.bool, device=weight.device)
        kept[list(groups)] = False
        return refit(weight, output_bias(site), statistics.moments(), kept.repeat_interleave(site.group_width))

    def _cut_layer(self, layer: int, groups: Sequence[int]) -> list[int]:
        apply_removal(self.model, self.family, {layer: groups})
        before = self.kept[layer]
        self.kept[layer] = [group for position, group in enumerate(before) if position not in groups]
        return [before[position] for position in sorted(groups)]

    def _write(self, layer: int, repair: Refit) -> None:
        set_output(self.family.sites(self.model)[layer], weight=repair.weight, bias=repair.bias)
