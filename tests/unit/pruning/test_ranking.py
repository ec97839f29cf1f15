from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentinel.pruning.ranking import by_importance, by_rows, swap_pairs


def rows_of(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def cost(rows, removed):
    """½ 1_Sᵀ F 1_S with the matrix written out."""
    z = torch.cat(rows, dim=1)
    chosen = torch.cat(
        [
            torch.zeros(r.shape[1]).index_fill(0, torch.tensor(s, dtype=torch.long), 1)
            for r, s in zip(rows, removed, strict=True)
        ]
    ).double()
    return float(chosen @ (z.T @ z) @ chosen) / 2


def test_the_least_important_goes_first_and_damages_add_up():
    ranking = by_importance(torch.tensor([3.0, 1.0, 2.0, 1.0]))
    assert ranking.order == [1, 3, 2, 0]
    assert ranking.damage.tolist() == [1, 2, 4, 7]
    assert ranking.importance().tolist() == [3, 1, 2, 1]


@given(seed=st.integers(0, 10**6), groups=st.integers(1, 7))
def test_rows_are_ordered_greedily_by_the_whole_quadratic_form(seed, groups):
    (rows,) = rows_of(seed, (5, groups))
    ranking = by_rows(rows)
    assert sorted(ranking.order) == list(range(groups))
    for count in range(1, groups + 1):
        gone = ranking.order[:count]
        assert float(ranking.damage[count - 1]) == pytest.approx(cost([rows], [gone]), rel=1e-9, abs=1e-12)
        others = [cost([rows], [[*gone[:-1], g]]) for g in range(groups) if g not in gone[:-1]]
        assert cost([rows], [gone]) <= min(others) + 1e-9


@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(1, 5), min_size=1, max_size=3), data=st.data())
def test_swaps_keep_the_counts_never_cost_and_end_where_no_swap_pays(seed, counts, data):
    rows = rows_of(seed, *[(6, count) for count in counts])
    start = [by_rows(z).order[: data.draw(st.integers(0, z.shape[1]))] for z in rows]
    found = swap_pairs(rows, start)
    assert list(map(len, found)) == list(map(len, start))
    assert cost(rows, found) <= cost(rows, start) + 1e-9
    for site, gone in enumerate(found):
        for out in set(range(counts[site])) - set(gone):
            for back in gone:
                other = [*found[:site], [g for g in gone if g != back] + [out], *found[site + 1 :]]
                assert cost(rows, found) <= cost(rows, other) + 1e-9


def test_swaps_reach_the_best_of_all_subsets_where_greedy_does_not():
    """Three groups that cancel, the greedy first choice not among the two that cancel each other."""
    rows = torch.tensor([[1.0, -1.0, 0.5, 3.0], [0.0, 0.1, 0.0, 0.0]], dtype=torch.float64)
    greedy = by_rows(rows).order[:2]
    best = min(combinations(range(4), 2), key=lambda gone: cost([rows], [list(gone)]))
    assert cost([rows], [greedy]) > cost([rows], [list(best)])
    assert swap_pairs([rows], [greedy]) == [list(best)]
