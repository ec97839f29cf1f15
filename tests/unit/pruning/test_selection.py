from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.errors import SpecInvalid
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.pruning.selection import Choice, even_levels, knapsack, planned_savings, select


def singly(dense, *, count=None, minimum=1):
    count = dense if count is None else count
    levels = range(max(0, count - minimum) + 1)
    return Choice(dense_count=dense, count=count, levels=levels, savings=levels)


def rankings(*sites):
    return [by_importance(torch.tensor(site, dtype=torch.float64)) for site in sites]


SCORES = rankings([3, 1, 2, 4], [0.1, 0.4, 0.3, 0.2])


def test_uniform_takes_the_least_important_of_every_site():
    assert select(SCORES, [singly(4), singly(4)], 4, allocation="uniform") == [[1, 2], [0, 3]]


@pytest.mark.parametrize("allocation", ["global", "cost"])
def test_global_and_cost_take_the_least_important_anywhere(allocation):
    assert select(SCORES, [singly(4), singly(4)], 2, allocation=allocation) == [[], [0, 3]]


@pytest.mark.parametrize("allocation", ["global", "cost"])
def test_floors_are_spared(allocation):
    choices = [singly(4, minimum=2), singly(4, minimum=2)]
    assert select(SCORES, choices, 4, allocation=allocation) == [[1, 2], [0, 3]]


def test_what_is_gone_already_counts_towards_an_even_share():
    choices = [singly(4, count=2), singly(4, count=4)]
    assert select(rankings([2, 1], [4, 3, 2, 1]), choices, 2, allocation="uniform") == [[], [2, 3]]


def test_global_weighs_damage_by_what_it_saves():
    dear, cheap = (Choice(dense_count=2, count=2, levels=[0, 1], savings=[0, s]) for s in (10.0, 1.0))
    assert select(rankings([3, 9], [2, 9]), [dear, cheap], 1, allocation="global") == [[0], []]


def test_cost_takes_no_more_than_is_needed_where_that_would_undo_damage():
    undone = Ranking(order=[0, 1], damage=torch.tensor([2.0, 1.0], dtype=torch.float64))
    choices = [singly(2, minimum=0), singly(2, minimum=0)]
    assert select([undone, rankings([3, 4])[0]], choices, 1, allocation="cost") == [[0], []]


def test_cost_is_exact_where_steps_are_not():
    """A second group that costs little hides behind a first that costs much."""
    hidden = Ranking(order=[0, 1], damage=torch.tensor([5.0, 5.0], dtype=torch.float64))
    plain = Ranking(order=[0, 1], damage=torch.tensor([3.0, 6.0], dtype=torch.float64))
    choices = [singly(2, minimum=0), singly(2, minimum=0)]
    assert select([hidden, plain], choices, 2, allocation="global") == [[], [0, 1]]
    assert select([hidden, plain], choices, 2, allocation="cost") == [[0, 1], []]


def test_ties_go_by_position():
    assert select(rankings([1, 1, 1, 1]), [singly(4)], 2, allocation="global") == [[0, 1]]


@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
def test_nothing_needed_removes_nothing(allocation):
    assert select(SCORES, [singly(4), singly(4)], 0, allocation=allocation) == [[], []]


@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
def test_more_than_the_levels_save_is_refused(allocation):
    with pytest.raises(SpecInvalid, match=r"asks to save 7; .* 6 can be saved.*minimum_per_layer"):
        select(SCORES, [singly(4), singly(4)], 7, allocation=allocation)


sites = st.lists(
    st.tuples(st.integers(1, 24), st.sampled_from([1, 2, 8]), st.integers(1, 2), st.booleans()), min_size=1, max_size=5
)


def blocks(count, block, minimum, *, protected):
    """The levels that `levels.py` gives an MLP: what is left is a multiple of the block, at least the minimum."""
    levels = [count - left for left in range(0, count, block) if left >= minimum * block]
    levels = [0] if protected else sorted({0, *levels})
    return Choice(dense_count=count, count=count, levels=levels, savings=[float(level) for level in levels])


@settings(deadline=None)
@given(
    sites=sites,
    share=st.floats(0, 1),
    allocation=st.sampled_from(["uniform", "global", "cost"]),
    seed=st.integers(0, 999),
)
def test_every_budget_is_met_and_only_levels_are_used(sites, share, allocation, seed):
    generator = torch.Generator().manual_seed(seed)
    choices = [blocks(count, block, minimum, protected=p) for count, block, minimum, p in sites]
    ranked = [by_importance(torch.rand(choice.count, generator=generator)) for choice in choices]
    most = sum(choice.savings[-1] for choice in choices)
    needed = float(round(share * most))
    removed = select(ranked, choices, needed, allocation=allocation)
    saved = sum(choice.saving(len(groups)) for choice, groups in zip(choices, removed, strict=True))
    assert saved >= needed
    for ranking, groups in zip(ranked, removed, strict=True):
        assert groups == sorted(ranking.order[: len(groups)])
    if allocation != "uniform" and all(list(choice.levels) == list(range(len(choice.levels))) for choice in choices):
        assert saved == needed
    if allocation == "uniform" and saved > needed:
        assert all(planned < needed for planned in lower_shares(choices, removed, saved))


def lower_shares(choices, removed, saved):
    """What every common share saves that saves less than what was found."""
    shares = {1 - (c.count - level) / c.dense_count for c in choices for level in c.levels}
    return [found for found in (planned_savings(choices, share) for share in shares) if found < saved]


@settings(deadline=None)
@given(data=st.data(), whole=st.booleans(), share=st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.999, 1.0]))
def test_the_knapsack_is_the_best_of_all_combinations(data, whole, share):
    """Savings with and without a common divisor, and damages that need not rise."""
    number = st.integers(0, 9) if whole else st.floats(0.01, 9)
    tables = data.draw(
        st.lists(st.lists(st.tuples(number, st.floats(0, 9)), min_size=1, max_size=4), min_size=1, max_size=4)
    )
    savings = [np.concatenate([[0.0], np.cumsum([saving for saving, _ in site])]) for site in tables]
    damages = [np.array([0.0, *(damage for _, damage in site)]) for site in tables]
    needed = share * sum(site[-1] for site in savings)

    def total(table, levels):
        return sum(site[level] for site, level in zip(table, levels, strict=True))

    found = knapsack(damages, savings, needed)
    assert total(savings, found) >= needed * (1 - 1e-9)
    everything = list(product(*(range(len(site)) for site in savings)))
    # Off the grid, what saves hardly more than needed may be missed.
    margin = 0 if whole else len(savings) * needed * 1e-5 + 1e-9
    enough = [levels for levels in everything if total(savings, levels) >= needed + margin]
    if enough and needed > 0:
        assert total(damages, found) <= min(total(damages, levels) for levels in enough) + 1e-9


def test_even_levels_end_at_the_highest():
    choices = [singly(4), singly(2)]
    assert even_levels(choices, 4) == [3, 1]
