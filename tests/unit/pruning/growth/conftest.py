"""A cut model, and the dense one that it was cut out of."""

import copy

import pytest

from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.tiny import CUT, calibrate


@pytest.fixture
def dense(model):
    return model


@pytest.fixture
def module(model, family, windows):
    """Lost some groups of both units, and was repaired."""
    module = PruningModule(copy.deepcopy(model), family)
    module.cut(calibrate(module.model, windows), CUT, compensation="least_squares")
    return module
