"""The tiny models and what they are calibrated on."""

import pytest
import torch
from transformers import PreTrainedModel

from sentinel.models.families import family_of
from sentinel.models.families.base import Family
from sentinel.pruning.calibration import Calibration
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
