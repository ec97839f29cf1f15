"""Spreads a budget over sites, given how each ranks its groups. Knows numbers only, no model.

Every site may stop at some levels: numbers of groups that go now. A level saves something (groups, parameters,
milliseconds) and does damage. Selection reaches the wanted saving with little damage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import assert_never

import numpy as np

from sentinel.errors import SpecInvalid
from sentinel.prune_spec import AllocationName
from sentinel.pruning.ranking import Ranking, swap_pairs

# Cells of the knapsack's table at most; savings are rounded down to its grid, so that a target is always met.
MAX_CELLS = 100_000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one site may lose.

    Attributes:
        dense_count: Groups of the dense model's site.
        count: Groups it has now.
        levels: Numbers of groups that may go now, ascending from 0.
        savings: What each level saves, ascending from 0; same length.
    """

    dense_count: int
    count: int
    levels: Sequence[int]
    savings: Sequence[float]

    def saving(self, number: int) -> float:
        """What the site saves when a number of its groups go, which is one of the levels."""
        return self.savings[self.levels.index(number)]

    def wanted(self, sparsity: float) -> float:
        """How many groups would have to go now for a share of the dense site's groups to be gone."""
        return self.dense_count * sparsity - (self.dense_count - self.count)

    def nearest(self, sparsity: float) -> int:
        """Index of the level that comes nearest to a share of the dense site's groups being gone."""
        wanted = self.wanted(sparsity)
        return min(range(len(self.levels)), key=lambda i: (abs(self.levels[i] - wanted), -i))


def planned_savings(choices: Sequence[Choice], sparsity: float) -> float:
    """What is saved when every site stops at the level nearest to `sparsity`."""
    return sum(choice.savings[choice.nearest(sparsity)] for choice in choices)


def select(
    rankings: Sequence[Ranking], choices: Sequence[Choice], needed: float, *, allocation: AllocationName
) -> list[list[int]]:
    """Groups to remove now, per site, ascending.

    Args:
        rankings: One per site.
        choices: The same sites.
        needed: What all sites together must save.
        allocation: `uniform` takes the same share of every site; `global` whatever does the least damage for what it
            saves, step by step; `cost` the least damage in all, exactly.

    Raises:
        SpecInvalid: The levels do not save that much.
    """
    check_reachable(choices, needed)
    levels = allocate(rankings, choices, needed, allocation=allocation)
    removed = [ranking.order[: choice.levels[i]] for ranking, choice, i in zip(rankings, choices, levels, strict=True)]
    rows = [ranking.rows for ranking in rankings if ranking.rows is not None]
    if rows and len(rows) == len(rankings):
        removed = swap_pairs(rows, removed)
    return [sorted(groups) for groups in removed]


def check_reachable(choices: Sequence[Choice], needed: float) -> None:
    """Raise SpecInvalid if even the highest levels do not save what is needed."""
    most = sum(choice.savings[-1] for choice in choices)
    if needed > most * (1 + 1e-9):
        raise SpecInvalid(
            f"The target asks to save {needed:g}; with these units and floors {most:g} can be saved. Raise the "
            "target's value (or lower prune.target.sparsity), lower prune.minimum_per_layer, or prune more units."
        )


def allocate(
    rankings: Sequence[Ranking], choices: Sequence[Choice], needed: float, *, allocation: AllocationName
) -> list[int]:
    """Index of the level at which each site stops."""
    if allocation == "uniform":
        return even_levels(choices, needed)
    damages = [_damages(ranking, choice) for ranking, choice in zip(rankings, choices, strict=True)]
    savings = [np.asarray(choice.savings, dtype=float) for choice in choices]
    if allocation == "global":
        return _global(damages, savings, needed)
    if allocation == "cost":
        # A group whose loss makes up for another's counts as free, not as a gain: nothing goes that need not.
        return knapsack([np.maximum.accumulate(damage) for damage in damages], savings, needed)
    assert_never(allocation)


def even_levels(choices: Sequence[Choice], needed: float) -> list[int]:
    """Index of the level of each site at the lowest common share of groups that saves enough."""
    shares = sorted({1 - (c.count - level) / c.dense_count for c in choices for level in c.levels})
    for share in shares:
        if planned_savings(choices, share) >= needed * (1 - 1e-9):
            return [choice.nearest(share) for choice in choices]
    return [len(choice.levels) - 1 for choice in choices]


def _damages(ranking: Ranking, choice: Choice) -> np.ndarray:
    """Damage at each level, 0 at the first."""
    table = np.concatenate([[0.0], ranking.damage.cpu().numpy()])
    return table[np.asarray(choice.levels)]


def _global(damages: Sequence[np.ndarray], savings: Sequence[np.ndarray], needed: float) -> list[int]:
    """Step by step the least damage for what a step saves, until enough is saved."""
    at = [0] * len(damages)
    saved = 0.0
    while saved < needed * (1 - 1e-9):
        prices = [
            (damages[s][i + 1] - damages[s][i]) / max(savings[s][i + 1] - savings[s][i], 1e-30)
            if i + 1 < len(damages[s])
            else np.inf
            for s, i in enumerate(at)
        ]
        site = int(np.argmin(prices))
        saved += savings[site][at[site] + 1] - savings[site][at[site]]
        at[site] += 1
    return at


def knapsack(damages: Sequence[np.ndarray], savings: Sequence[np.ndarray], needed: float) -> list[int]:
    """The multiple-choice knapsack by dynamic programming: one level per site, least total damage, enough saved.

    Exact on the grid: that of the savings' greatest common divisor, or of `MAX_CELLS` cells where they have none.
    """
    if needed <= 0:
        return [0] * len(damages)
    unit = _grid(savings, needed)
    cells = int(np.ceil(needed / unit - 1e-9))
    steps = [np.minimum(np.floor(site / unit + 1e-9).astype(int), cells) for site in savings]
    best = np.full(cells + 1, np.inf)  # least damage of the sites so far, by what they save (the last cell: or more)
    best[0] = 0.0
    taken = []
    for damage, step in zip(damages, steps, strict=True):
        best, choice = _with_site(best, damage, step)
        taken.append(choice)
    if np.isinf(best[cells]):  # savings rounded down to the grid fall short of a target near the most that can be saved
        return [len(site) - 1 for site in savings]
    return _walk_back(taken, steps, cells)


def _with_site(best: np.ndarray, damage: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The table with one more site, and which level and which earlier cell led to each cell."""
    cells = len(best) - 1
    new, origin = np.full(cells + 1, np.inf), np.zeros((2, cells + 1), dtype=np.int32)
    for level, (cost, shift) in enumerate(zip(damage, step, strict=True)):
        reached = np.full(cells + 1, np.inf)
        source = np.arange(cells + 1) - shift
        reached[shift:] = best[: cells + 1 - shift]
        over = int(best[cells - shift :].argmin()) + cells - shift  # everything beyond the last cell ends in it
        reached[cells], source[cells] = best[over], over
        better = reached + cost < new
        new[better] = reached[better] + cost
        origin[0, better], origin[1, better] = level, source[better]
    return new, origin


def _walk_back(taken: Sequence[np.ndarray], steps: Sequence[np.ndarray], cells: int) -> list[int]:
    levels, cell = [0] * len(steps), cells
    for site in reversed(range(len(steps))):
        levels[site], cell = int(taken[site][0, cell]), int(taken[site][1, cell])
    return levels


def _grid(savings: Sequence[np.ndarray], needed: float) -> float:
    values = np.concatenate(list(savings))
    if np.all(values == np.round(values)):
        unit = gcd(*(int(value) for value in values if value > 0))
        if unit and needed / unit <= MAX_CELLS:
            return float(unit)
    return needed / MAX_CELLS
