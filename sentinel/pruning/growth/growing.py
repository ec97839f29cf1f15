"""Grows a model: offers candidates, asks a strategy, inserts what it chose, and lets it start.

What a grown model learns and whether it stays is decided above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sentinel.grow_spec import Grow
from sentinel.models.adaptive.pathways import pairs
from sentinel.models.families.base import Unit
from sentinel.prune_spec import Prune
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.growth import initialization
from sentinel.pruning.growth.candidates import Groups, Sources, copies_of, new_groups, paired_with, removed_groups
from sentinel.pruning.growth.choice import choose
from sentinel.pruning.growth.probe import Gains, Probe, places
from sentinel.pruning.growth.strategies import STRATEGIES
from sentinel.pruning.levels import units_of
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import rank_groups


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A model with new groups.

    Attributes:
        module: The model and its groups; what it was grown from is unchanged.
        groups: Unit → layer → the groups that came.
        gains: Unit → layer → group → what the strategy promised, of every candidate.
    """

    module: PruningModule
    groups: Groups
    gains: dict[Unit, dict[int, dict[int, float]]]

    def places(self) -> dict[Unit, dict[int, list[int]]]:
        """Unit → layer → where the new groups are in the layer."""
        return {
            unit: {layer: places(self.module, unit, layer, groups) for layer, groups in layers.items()}
            for unit, layers in self.groups.items()
        }


def grow(
    module: PruningModule,
    dense: PreTrainedModel,
    *,
    how: Grow,
    prune: Prune,
    windows: torch.Tensor,
    seed: int,
    layers: Sequence[int] = (),
) -> Grown | None:
    """Grow `how.fraction` of the dense model's groups of every unit that `prune` removes; None if nothing can come.

    Args:
        module: Is left as it is.
        dense: The model that it was cut out of.
        how: Which groups, and what they start from.
        prune: Says the units and the block of neurons.
        windows: Training tokens, (windows, sequence_length), on the model's device.
        seed: Of whatever is drawn.
        layers: Where groups may come; empty for anywhere.
    """
    units = units_of(prune.units)
    block: dict[Unit, int] = {"attention": 1, "mlp": prune.mlp_block}
    number = {u: _number(sum(module.dense_counts[u]), how.fraction, block[u]) for u in units}
    sources = _sources(module, dense, how, number, windows, seed=seed)
    candidates = _allowed(_candidates(module, how, number, sources), layers)
    if not candidates:
        return None
    probe = Probe(
        now=module,
        wide=_with(module, dense, candidates, how, sources, seed=seed),
        dense=dense,
        candidates=candidates,
        windows=windows,
        seed=seed,
    )
    gains = STRATEGIES[how.strategy](probe)
    chosen = choose(candidates, gains, number=number, block=block)
    if not chosen:
        return None
    grown = _with(module, dense, chosen, how, sources, seed=seed)
    if how.initialization == "least_squares":
        initialization.fit_outputs(grown, chosen, dense, windows, seed=seed)
    return Grown(module=grown, groups=chosen, gains=_named(candidates, gains))


def _number(dense: int, fraction: float, block: int) -> int:
    """Groups of a unit that shall come: whole blocks, at least one."""
    return max(1, round(dense * fraction / block)) * block


def _sources(
    module: PruningModule,
    dense: PreTrainedModel,
    how: Grow,
    number: Mapping[Unit, int],
    windows: torch.Tensor,
    *,
    seed: int,
) -> Sources:
    """The most important groups that are there, each with a new one that could start from it."""
    if how.initialization not in ("split", "paired"):
        return {}
    survivors = _most_important(_survivors(module, list(number), windows, seed=seed), number)
    if how.initialization == "split":
        return copies_of(module, survivors)
    return paired_with(module, survivors, {unit: pairs(dense, module.family, unit) for unit in number})


def _survivors(module: PruningModule, units: Sequence[Unit], windows: torch.Tensor, *, seed: int) -> Groups:
    """Unit → layer → groups that are there, the most important first."""
    calibration = Calibration(model=module.model, family=module.family, units=units, windows=windows, seed=seed)
    found: dict[Unit, dict[int, list[int]]] = {}
    for site, ranking in zip(calibration.sites(), rank_groups(calibration, "taylor"), strict=True):
        kept = module.kept[site.unit][site.layer]
        found.setdefault(site.unit, {})[site.layer] = [kept[position] for position in reversed(ranking.order)]
    return found


def _most_important(survivors: Groups, number: Mapping[Unit, int]) -> Groups:
    return {u: {layer: groups[: number[u]] for layer, groups in layers.items()} for u, layers in survivors.items()}


def _candidates(module: PruningModule, how: Grow, number: Mapping[Unit, int], sources: Sources) -> Groups:
    """What could come; with sources no more than those, but in layers that have none."""
    if how.initialization == "fresh":
        return new_groups(module, number)
    started = {u: {layer: list(source.groups) for layer, source in of.items()} for u, of in sources.items()}
    if how.initialization == "split":
        return started
    removed = removed_groups(module, list(number))
    return {unit: {**layers, **started.get(unit, {})} for unit, layers in removed.items()}


def _allowed(candidates: Groups, layers: Sequence[int]) -> Groups:
    allowed = {
        unit: {layer: groups for layer, groups in of_unit.items() if groups and (not layers or layer in layers)}
        for unit, of_unit in candidates.items()
    }
    return {unit: of_unit for unit, of_unit in allowed.items() if of_unit}


def _with(
    module: PruningModule, dense: PreTrainedModel, groups: Groups, how: Grow, sources: Sources, *, seed: int
) -> PruningModule:
    """The module with these groups in, as they start; they change nothing yet."""
    wide = module.with_groups(dense, groups)
    if how.initialization == "fresh":
        initialization.freshen(wide, groups, seed=seed)
    elif how.initialization == "split":
        initialization.split(wide, groups, sources, seed=seed)
    elif how.initialization == "paired":
        initialization.copy_inner(wide, groups, sources)
    return wide


def _named(candidates: Groups, gains: Gains) -> dict[Unit, dict[int, dict[int, float]]]:
    return {
        unit: {layer: dict(zip(groups, gains[unit][layer], strict=True)) for layer, groups in layers.items()}
        for unit, layers in candidates.items()
    }
