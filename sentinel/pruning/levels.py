"""What a spec allows every site to lose, and what it wants to be saved in all. Knows sites and costs, no score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentinel.models.families.base import UNITS, Site, Unit
from sentinel.prune_spec import Prune, UnitName
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.costs import Cost, cost_of
from sentinel.pruning.selection import Choice, planned_savings


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A saving that some sites have to reach together.

    Attributes:
        sites: Their indices.
        needed: What they must save now.
    """

    sites: Sequence[int]
    needed: float


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the sites may lose, and what has to be saved.

    Attributes:
        sites: The sites.
        choices: What each of them may lose.
        goals: What has to be saved by which.
        cost: What the target counts.
    """

    sites: Sequence[Site]
    choices: Sequence[Choice]
    goals: Sequence[Goal]
    cost: Cost

    @property
    def goal(self) -> float:
        """What the cost has to fall to."""
        return self.cost.total - sum(goal.needed for goal in self.goals)


def units_of(names: Sequence[UnitName]) -> list[Unit]:
    """The kinds of sites that lose something; a whole `layer` is its attention or its MLP."""
    return [unit for unit in UNITS if unit in names or "layer" in names]


def cost_for(prune: Prune, calibration: Calibration) -> Cost:
    """What the spec's target counts; with whole layers alone, sparsity counts those."""
    return cost_of(
        "sites" if _whole_only(prune) and prune.target.kind == "sparsity" else prune.target.kind, calibration
    )


def share_of_the_way(prune: Prune, calibration: Calibration, *, size: float) -> float:
    """How much of the way from its cost now to the target the model has gone when it costs `size`.

    Not of `sparsity`, which is counted from the dense model.
    """
    cost, target = cost_for(prune, calibration).total, prune.target.value
    return max(0.0, (cost - size) / (cost - target)) if cost > target else 0.0


def choice_of(prune: Prune, site: Site, *, dense_count: int, cost: Cost) -> Choice:
    """The levels of one site under a spec's units, blocks and floors."""
    levels = _levels(prune, site, site.num_groups)
    savings = [float(saving) for saving in cost.savings(site, levels)]
    return Choice(dense_count=dense_count, count=site.num_groups, levels=levels, savings=savings)


def goals_of(
    prune: Prune,
    sites: Sequence[Site],
    choices: Sequence[Choice],
    cost: Cost,
    *,
    emptied: int,
    before: float,
    progress: float,
) -> list[Goal]:
    """What has to be saved: under `sparsity` by each unit for itself, else by all sites together.

    Args:
        prune: The spec's section.
        sites: The sites.
        choices: What each may lose.
        cost: What the target counts.
        emptied: Sites of these units that have lost everything already.
        before: How much of the way to the target is done, 0 to 1.
        progress: How much shall be done after this cut.
    """
    everything = range(len(sites))
    if prune.target.kind != "sparsity":
        share = (progress - before) / (1 - before) if before < 1 else 1.0
        return [Goal(sites=everything, needed=max(0.0, (cost.total - prune.target.value) * share))]
    sparsity = prune.target.value * progress
    if _whole_only(prune):
        wanted = int((len(sites) + emptied) * sparsity + 0.5)
        return [Goal(sites=everything, needed=max(0, wanted - emptied))]
    even = prune.allocation == "uniform"
    whole = [_whole(prune, site, choice.dense_count) for site, choice in zip(sites, choices, strict=True)]
    by_unit: Mapping[Unit, list[int]] = {u: [i for i in everything if sites[i].unit == u] for u in UNITS}
    return [
        Goal(
            sites=indices,
            needed=_needed([choices[i] for i in indices], [whole[i] for i in indices], sparsity, even=even),
        )
        for indices in by_unit.values()
        if indices
    ]


def _whole(prune: Prune, site: Site, dense_count: int) -> Choice:
    """What the site might have lost when nothing was gone yet; it saves groups."""
    levels = _levels(prune, site, dense_count)
    return Choice(dense_count=dense_count, count=dense_count, levels=levels, savings=levels)


def _needed(choices: Sequence[Choice], whole: Sequence[Choice], sparsity: float, *, even: bool) -> float:
    """Groups of one unit to remove: as many as if every site stopped at the level nearest to the sparsity.

    What sites have lost beyond their share already, the others keep, so that as many are left whatever way led there.
    Where sites need not stay even and groups go singly, or where a site may not lose its share, the number itself.
    """
    singly = all(list(choice.levels) == list(range(len(choice.levels))) for choice in whole)
    short = any(choice.wanted(sparsity) > choice.levels[-1] for choice in whole)
    if even and not short:
        return planned_savings(choices, sparsity)
    dense = sum(choice.dense_count for choice in choices)
    wanted = int(dense * sparsity + 0.5) if short or singly else planned_savings(whole, sparsity)
    return max(0, wanted - (dense - sum(choice.count for choice in choices)))


def _levels(prune: Prune, site: Site, count: int) -> list[int]:
    if site.layer in prune.protected_layers:
        return [0]
    levels = {0}
    if site.unit in prune.units:
        block = prune.mlp_block if site.unit == "mlp" else 1
        floor = prune.minimum_per_layer * block
        levels |= {count - left for left in range(0, count, block) if left >= floor}
    if "layer" in prune.units:
        levels.add(count)
    return sorted(levels)


def _whole_only(prune: Prune) -> bool:
    return list(prune.units) == ["layer"]
