"""The built-in model, one with less attention, and two texts, all small."""

import copy

import pytest

from sentinel.inputs import Domain, load_inputs
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import parse_spec

STRESS = {
    "tokens": 512,
    "probes": {"sequences": 4},
    "alternation": {"rounds": 2, "steps": 2},
    "damage": {"steps": 2, "points": 2},
    "learning_rate": 1e-3,
    "batch_tokens": 128,
}


@pytest.fixture(scope="session")
def stress_spec():
    """Called with what differs in `evaluate.stress`."""

    def spec(**stress):
        return parse_spec(
            {
                "model": "builtin/llama",
                "data": {"source": "builtin", "sequence_length": 64},
                "prune": {"target": {"sparsity": 0.25}, "calibration_sequences": 32},
                "heal": None,
                "evaluate": {"tokens": 2048, "prompts": [], "stress": {**STRESS, **stress}},
                "device": "cpu",
            }
        )

    return spec


@pytest.fixture(scope="session")
def inputs(stress_spec):
    return load_inputs(stress_spec(), allowed_roots=None)


@pytest.fixture(scope="session")
def pruned(inputs):
    model = copy.deepcopy(inputs.dense)
    apply_removal(model, inputs.family, {"attention": {0: [1], 2: [0, 2]}})
    return model


@pytest.fixture(scope="session")
def own(inputs):
    return Domain(text="", name="data", training=inputs.calibration, evaluation=inputs.evaluation[:8])


@pytest.fixture(scope="session")
def other(inputs):
    domain = inputs.domains["programs"]
    return Domain(text="", name="programs", training=domain.training, evaluation=domain.evaluation[:2])


@pytest.fixture(scope="session")
def deep_copy():
    return copy.deepcopy
