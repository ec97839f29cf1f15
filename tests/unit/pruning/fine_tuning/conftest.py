"""A cut model and the dense one."""

import copy

import pytest

from sentinel.models.optimized.surgery import apply_removal


@pytest.fixture
def pruned(model, family):
    dense = copy.deepcopy(model)
    apply_removal(model, family, {"attention": {0: [0], 1: [1], 2: [2]}, "mlp": {1: range(8)}})
    return model, dense
