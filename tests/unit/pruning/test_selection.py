import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentinel.errors import SpecInvalid
from sentinel.pruning.selection import Budget, planned_removals, select_groups


def budget(dense, sparsity, *, counts=None, minimum=1):
    return Budget(dense_counts=dense, counts=counts or dense, sparsity=sparsity, minimum_per_layer=minimum)


def scores(*layers):
    return [torch.tensor(layer, dtype=torch.float64) for layer in layers]


def test_uniform_takes_the_least_important_of_every_layer():
    importance = scores([3, 1, 2, 4], [0.1, 0.4, 0.3, 0.2])
    assert select_groups(importance, budget([4, 4], 0.5), allocation="uniform") == {0: [1, 2], 1: [0, 3]}


def test_global_takes_the_least_important_anywhere():
    importance = scores([3, 1, 2, 4], [0.1, 0.4, 0.3, 0.2])
    assert select_groups(importance, budget([4, 4], 0.25), allocation="global") == {1: [0, 3]}


def test_global_spares_the_minimum_of_a_layer():
    importance = scores([3, 1, 2, 4], [0.1, 0.4, 0.3, 0.2])
    assert select_groups(importance, budget([4, 4], 0.5, minimum=2), allocation="global") == {0: [1, 2], 1: [0, 3]}


def test_what_is_gone_already_counts_towards_the_target():
    importance = scores([3, 1, 2], [0.1, 0.4, 0.3])
    chosen = select_groups(importance, budget([4, 4], 0.5, counts=[3, 3]), allocation="uniform")
    assert chosen == {0: [1], 1: [0]}


def test_ties_go_by_position():
    importance = scores([1, 1, 1, 1])
    assert select_groups(importance, budget([4], 0.5), allocation="global") == {0: [0, 1]}


def test_nothing_to_remove_selects_nothing():
    assert select_groups(scores([1, 2]), budget([2], 0.0), allocation="uniform") == {}


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_an_unreachable_sparsity_is_refused(allocation):
    with pytest.raises(SpecInvalid, match="minimum_per_layer"):
        select_groups(scores([1, 2], [1, 2]), budget([2, 2], 0.75, minimum=1), allocation=allocation)


@given(
    dense=st.lists(st.integers(2, 12), min_size=1, max_size=6),
    sparsity=st.floats(0, 0.5),
    allocation=st.sampled_from(["uniform", "global"]),
    seed=st.integers(0, 1000),
)
def test_the_budget_is_met_exactly(dense, sparsity, allocation, seed):
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(count, generator=generator) for count in dense]
    wanted = budget(dense, sparsity)
    chosen = select_groups(importance, wanted, allocation=allocation)
    assert sum(map(len, chosen.values())) == sum(planned_removals(wanted, allocation=allocation))
    for layer, groups in chosen.items():
        assert dense[layer] - len(groups) >= 1
        assert groups == sorted(set(groups))
