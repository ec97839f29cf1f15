"""Merges groups that do nearly the same, before anything is cut: what goes in this way is not missed.

Knows how far merging may go: no site below its floor, and nothing beyond what the cycle has to save.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentinel.models.families.base import UNITS, Unit
from sentinel.prune_spec import Prune
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.levels import Demand, Goal, share_of_the_way
from sentinel.pruning.merging import Twin, twins
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.selection import even_levels
from sentinel.pruning.trial import as_cut
from sentinel.result import LayerCompensation, MergeRecord

# Merges that a sentence names; the record has them all.
MOST_TOLD = 20
# Unit → layer → groups, by their index in the dense model.
Groups = Mapping[Unit, Mapping[int, Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class Consolidation:
    """What was merged, and what is left to cut.

    Attributes:
        merged: One per group that went.
        removed: The same groups, by their index in the dense model.
        compensation: A record per projection whose groups took over.
        before: For `PruningModule.select`: how much of the way to the target is done now.
        progress: How much shall be done after the cut.
    """

    merged: Sequence[MergeRecord]
    removed: Groups
    compensation: Sequence[LayerCompensation]
    before: float
    progress: float


def consolidate(
    module: PruningModule, calibration: Calibration, prune: Prune, *, before: float = 0.0, progress: float = 1.0
) -> Consolidation:
    """Merge what `prune.merge` asks for, with the arguments of `PruningModule.select`; the module is changed."""
    nothing = Consolidation(merged=[], removed={}, compensation=[], before=before, progress=progress)
    if prune.merge is None:
        return nothing
    demand = module.demand(calibration, prune, before=before, progress=progress)
    chosen = choose(demand, twins(calibration, prune.merge), even=prune.allocation == "uniform")
    if not any(chosen):
        return nothing
    merged = [
        MergeRecord(
            unit=site.unit,
            layer=site.layer,
            group=module.kept[site.unit][site.layer][twin.group],
            partner=module.kept[site.unit][site.layer][twin.partner],
            cosine=twin.cosine,
        )
        for site, found in zip(demand.sites, chosen, strict=True)
        for twin in found
    ]
    cut = as_cut(demand.sites, [sorted(twin.group for twin in found) for found in chosen])
    removed, compensation = module.cut(calibration, cut, compensation="least_squares")
    if prune.target.kind != "sparsity":  # its share is counted from the dense model, others' from what is left
        before, progress = 0.0, share_of_the_way(prune, calibration, size=demand.goal)
    return Consolidation(merged=merged, removed=removed, compensation=compensation, before=before, progress=progress)


def union(*parts: Groups) -> dict[str, dict[int, list[int]]]:
    """All groups of several cuts of one model, ascending."""
    return {
        unit: {
            layer: sorted(group for part in parts for group in part.get(unit, {}).get(layer, ()))
            for layer in sorted({layer for part in parts for layer in part.get(unit, {})})
        }
        for unit in UNITS
        if any(unit in part for part in parts)
    }


def sentences(merged: Sequence[MergeRecord]) -> list[str]:
    """What was merged, a sentence per layer and unit, with every cosine; of many neurons the nearest ones'."""
    places: dict[tuple[str, int], list[MergeRecord]] = {}
    for record in merged:
        places.setdefault((record.unit, record.layer), []).append(record)
    return [_sentence(unit, layer, records) for (unit, layer), records in places.items()]


def _sentence(unit: str, layer: int, records: Sequence[MergeRecord]) -> str:
    pairs = ", ".join(f"{r.group} into {r.partner} (cosine {r.cosine:.4f})" for r in records[:MOST_TOLD])
    rest = f", and {len(records) - MOST_TOLD} more" if len(records) > MOST_TOLD else ""
    return f"merged {len(records)} {unit} group(s) of layer {layer}: {pairs}{rest}."


def choose(demand: Demand, found: Sequence[Sequence[Twin]], *, even: bool) -> list[Sequence[Twin]]:
    """The nearest twins that may go, per site: at its levels, and no more than the goals need.

    Args:
        demand: What may and has to go.
        found: Twins per site, the nearest first.
        even: Whether all sites have to end at the same share of their groups.
    """
    chosen: list[Sequence[Twin]] = [() for _ in found]
    for goal in demand.goals:
        for site, number in _numbers(demand, goal, found, even=even).items():
            chosen[site] = found[site][:number]
    return chosen


def _numbers(demand: Demand, goal: Goal, found: Sequence[Sequence[Twin]], *, even: bool) -> dict[int, int]:
    """Site → how many go: always the step to a site's next level whose farthest twins are the nearest of all.

    To the next that saves anything by the target, so that nothing goes for nothing.
    """
    choices, most = demand.choices, {site: len(found[site]) for site in goal.sites}
    if even:
        levels = even_levels([choices[site] for site in goal.sites], goal.needed)
        most = {s: min(most[s], choices[s].levels[level]) for s, level in zip(goal.sites, levels, strict=True)}
    numbers, left = dict.fromkeys(goal.sites, 0), goal.needed * (1 + 1e-9)
    while True:
        steps = []
        for site, number in numbers.items():
            of_levels = zip(choices[site].levels, choices[site].savings, strict=True)
            saved = choices[site].saving(number)
            further, saving = next(((level, s - saved) for level, s in of_levels if s > saved), (0, 0.0))
            if 0 < further <= most[site] and saving <= left:
                steps.append((abs(found[site][further - 1].cosine), site, further, saving))
        if not steps:
            return numbers
        _, site, further, saving = max(steps)
        numbers[site] = further
        left -= saving
