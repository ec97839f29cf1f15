"""Chooses which groups go, given their importance. Knows numbers only, no model.

Indices are positions among the groups that a layer still has; counts of the dense model set
the budget, so that sparsity always means a share of the dense model's groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from sentinel.errors import SpecInvalid

Allocation = Literal["uniform", "global"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many groups may be left.

    Attributes:
        dense_counts: Groups per layer of the dense model.
        counts: Groups per layer now.
        sparsity: Share of the dense model's groups to be gone afterwards.
        minimum_per_layer: Groups that every layer keeps.
    """

    dense_counts: Sequence[int]
    counts: Sequence[int]
    sparsity: float
    minimum_per_layer: int


def select_groups(
    importance: Sequence[torch.Tensor], budget: Budget, *, allocation: Allocation
) -> dict[int, list[int]]:
    """Groups to remove now, the least important first, ties by position.

    Args:
        importance: One (groups,) tensor per layer; higher = keep.
        budget: What must be left.
        allocation: `uniform` takes the same share from every layer, `global` the least important anywhere.

    Returns:
        layer → sorted positions; layers that lose nothing are absent.

    Raises:
        SpecInvalid: The budget cannot be met with `minimum_per_layer` groups in every layer.
    """
    check_budget(budget, allocation=allocation)
    choose = _uniform if allocation == "uniform" else _global
    removed = choose(importance, budget)
    return {layer: sorted(groups) for layer, groups in removed.items() if groups}


def check_budget(budget: Budget, *, allocation: Allocation) -> None:
    """Raise SpecInvalid if `minimum_per_layer` stands in the way of the sparsity."""
    spare = [max(0, dense - budget.minimum_per_layer) for dense in budget.dense_counts]
    goal = planned_removals(budget, allocation=allocation)
    reachable = (
        sum(goal) <= sum(spare) if allocation == "global" else all(g <= s for g, s in zip(goal, spare, strict=True))
    )
    if not reachable:
        raise SpecInvalid(
            f"Sparsity {budget.sparsity:g} leaves fewer than {budget.minimum_per_layer} group(s) in some layer "
            f"of {list(budget.dense_counts)} groups. Lower prune.target.sparsity or prune.minimum_per_layer."
        )


def planned_removals(budget: Budget, *, allocation: Allocation) -> list[int]:
    """Groups of the dense model to be gone afterwards: per layer for `uniform`, one total for `global`."""
    scopes = budget.dense_counts if allocation == "uniform" else [sum(budget.dense_counts)]
    return [_removed_of(count, budget.sparsity) for count in scopes]


def _removed_of(count: int, sparsity: float) -> int:
    return int(count * sparsity + 0.5)


def _uniform(importance: Sequence[torch.Tensor], budget: Budget) -> dict[int, list[int]]:
    goals = planned_removals(budget, allocation="uniform")
    removed = {}
    for layer, (scores, goal) in enumerate(zip(importance, goals, strict=True)):
        excess = max(0, budget.counts[layer] - (budget.dense_counts[layer] - goal))
        removed[layer] = torch.argsort(scores, stable=True)[:excess].tolist()
    return removed


def _global(importance: Sequence[torch.Tensor], budget: Budget) -> dict[int, list[int]]:
    (goal,) = planned_removals(budget, allocation="global")
    excess = sum(budget.counts) - (sum(budget.dense_counts) - goal)
    candidates = [(layer, group) for layer, scores in enumerate(importance) for group in range(len(scores))]
    order = torch.argsort(torch.cat([scores.double() for scores in importance]), stable=True).tolist()
    removed: dict[int, list[int]] = {layer: [] for layer in range(len(importance))}
    for layer, group in (candidates[i] for i in order):
        if excess <= 0:
            break
        if budget.counts[layer] - len(removed[layer]) > budget.minimum_per_layer:
            removed[layer].append(group)
            excess -= 1
    return removed
