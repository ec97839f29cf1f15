"""In which order the groups of one site should go, and what that costs. Knows numbers only."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """What a strategy says about the groups of one site.

    Attributes:
        order: All groups, the first to go first.
        damage: (groups,) float64; what the model loses, by the strategy's measure, when the first 1, 2, … groups of
            the order are gone. Differences compare across sites.
        rows: (rows, groups) float64 or None; where given, removing a set S of groups of any sites costs ½‖Z 1_S‖²,
            Z the rows of all sites side by side.
    """

    order: list[int]
    damage: torch.Tensor
    rows: torch.Tensor | None = None

    def importance(self) -> torch.Tensor:
        """(groups,): what each group adds to the damage at its place in the order."""
        added = torch.diff(self.damage, prepend=self.damage.new_zeros(1))
        return torch.empty_like(added).scatter_(0, torch.tensor(self.order), added)


def by_importance(importance: torch.Tensor) -> Ranking:
    """The least important group first, ties by position; damages add up."""
    importance = importance.double().cpu()
    order = torch.argsort(importance, stable=True)
    return Ranking(order=order.tolist(), damage=importance[order].cumsum(0))


def by_rows(rows: torch.Tensor) -> Ranking:
    """Greedy order of least ½‖Z 1_S‖² for Z of shape (rows, groups); ZᵀZ is never formed."""
    left = torch.ones(rows.shape[1], dtype=torch.bool)
    removed = rows.new_zeros(len(rows))
    squares = rows.square().sum(0)
    order, damage = [], []
    while left.any():
        group = int((squares / 2 + removed @ rows).masked_fill(~left, torch.inf).argmin())
        left[group] = False
        order.append(group)
        removed += rows[:, group]
        damage.append(float(removed.square().sum()) / 2)
    return Ranking(order=order, damage=torch.tensor(damage, dtype=torch.float64), rows=rows)


def swap_pairs(rows: list[torch.Tensor], removed: list[list[int]]) -> list[list[int]]:
    """Swap removed groups with kept ones of the same site while that lowers ½‖Z 1_S‖² over all sites.

    Args:
        rows: (rows, groups) per site.
        removed: Groups chosen per site; every site keeps its number.
    """
    chosen = [
        torch.zeros(z.shape[1], dtype=torch.bool).index_fill(0, torch.tensor(r, dtype=torch.long), value=1)
        for z, r in zip(rows, removed, strict=True)
    ]
    total = torch.stack([z[:, c].sum(1) for z, c in zip(rows, chosen, strict=True)]).sum(0)
    improved = True
    while improved:
        improved = False
        for z, c in zip(rows, chosen, strict=True):
            while (pair := _best_swap(z, c, total)) is not None:
                out, back = pair
                total = total + z[:, out] - z[:, back]
                c[out], c[back] = True, False
                improved = True
    return [c.nonzero().flatten().tolist() for c in chosen]


def _best_swap(rows: torch.Tensor, chosen: torch.Tensor, total: torch.Tensor) -> tuple[int, int] | None:
    """(kept group to remove, removed group to keep) that lowers ½‖total‖² most; None where none does."""
    outs, backs = (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
    if not len(outs) or not len(backs):
        return None
    along = total @ rows
    squares = rows.square().sum(0)
    change = (along[outs] + squares[outs] / 2)[:, None] + (squares[backs] / 2 - along[backs])[None]
    change = change - rows[:, outs].T @ rows[:, backs]
    best = int(change.argmin())
    if change.flatten()[best] >= -1e-12 * float(total @ total):
        return None
    return int(outs[best // len(backs)]), int(backs[best % len(backs)])
