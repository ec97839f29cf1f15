"""The tiny models and what they are calibrated on."""

import pytest
import torch
from transformers import PreTrainedModel

from sentinel.inputs import Inputs, load_inputs
from sentinel.models.families import family_of
from sentinel.models.families.base import Family
from sentinel.pruning.calibration import Calibration
from sentinel.spec import parse_spec
from tests.unit.pruning.tiny import VOCABULARY, calibrate, tiny_gpt2, tiny_llama


@pytest.fixture(params=[tiny_gpt2, tiny_llama], ids=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return request.param()


@pytest.fixture
def family(model: PreTrainedModel) -> Family:
    return family_of(model.config.model_type)


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calibration(model: PreTrainedModel, windows: torch.Tensor) -> Calibration:
    """Both units."""
    return calibrate(model, windows)


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def trained(request: pytest.FixtureRequest) -> Inputs:
    """A built-in model, which has learnt something, and its text; whoever changes the model takes a copy."""
    document = {
        "model": f"builtin/{request.param}",
        "data": {"source": "builtin", "sequence_length": 64},
        "prune": {"target": {"sparsity": 0.5}, "calibration_sequences": 16},
        "heal": None,
        "evaluate": {"tokens": 64},
        "device": "cpu",
    }
    return load_inputs(parse_spec(document), allowed_roots=None)
