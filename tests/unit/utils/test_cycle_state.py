import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sentinel.errors import CheckpointInvalid
from sentinel.spec import parse_spec
from sentinel.utils.checkpoints.cycle_state import (
    WEIGHTS_FILE,
    CycleState,
    load_state,
    load_weights,
    save_state,
    spec_digest,
    state_folder,
)

DOCUMENT = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}


def tied_model(seed):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2))


@pytest.fixture
def saved(tmp_path):
    spec, model = parse_spec(DOCUMENT), tied_model(0)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"name": "loss"}\n')
    state = CycleState(
        spec_sha256=spec_digest(spec),
        cycle=2,
        kept={"attention": [[1]], "mlp": [[0, 2]]},
        records=[],
        timings_s={"healing": 1.5},
    )
    folder = state_folder(tmp_path / "state", 2)
    save_state(folder, state, model, metrics)
    return folder, spec, state, model


def test_state_comes_back_bit_for_bit(saved):
    folder, spec, state, model = saved
    other = tied_model(1)
    load_weights(folder, other)
    assert load_state(folder, spec) == state
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert other.lm_head.weight is other.transformer.wte.weight
    assert [file.name for file in folder.parent.iterdir()] == ["cycle-0002"]


def test_saving_again_replaces_the_older_state(saved, tmp_path):
    folder, spec, state, _ = saved
    later = state.model_copy(update={"kept": {"attention": [[0]], "mlp": [[]]}})
    save_state(folder, later, tied_model(3), tmp_path / "metrics.jsonl")
    assert load_state(folder, spec).kept == {"attention": [[0]], "mlp": [[]]}


def test_name_and_limits_may_change_between_attempts_but_nothing_else(saved):
    folder, _, state, _ = saved
    assert load_state(folder, parse_spec({**DOCUMENT, "name": "x", "limits": {"max_runtime_s": 5}})) == state
    with pytest.raises(CheckpointInvalid, match="another spec"):
        load_state(folder, parse_spec({**DOCUMENT, "seed": 1}))


def test_damage_is_noticed(saved):
    folder, spec, _, model = saved
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(CheckpointInvalid, match="weights"):
        load_weights(folder, model)
    (folder / "state.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match="Cannot read"):
        load_state(folder, spec)


def test_weights_of_other_shapes_are_refused(saved):
    torch.manual_seed(0)
    wider = GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(CheckpointInvalid, match="do not fit"):
        load_weights(saved[0], wider)
