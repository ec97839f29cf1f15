import pytest
import torch

from sentinel.errors import CheckpointInvalid
from sentinel.models.loaders.weights import load_weights
from sentinel.models.optimized.export import export
from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import UNEVEN, make_loaded, survivors


def cut(variant):
    model, tokenizer, family = make_loaded(variant, dtype=torch.bfloat16)
    kept = survivors(family, model, UNEVEN)
    apply_removal(model, family, UNEVEN)
    return model, tokenizer, family, kept


def write(variant, directory):
    model, tokenizer, family, kept = cut(variant)
    export(model, tokenizer, family=family, form="auto", dtype="bfloat16", directory=directory, kept=kept)
    return model


def test_weights_come_back_bit_for_bit(variant, tmp_path):
    model = write(variant, tmp_path / "checkpoint")
    other = cut(variant)[0]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_weights(tmp_path / "checkpoint", other)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    assert len({id(p) for p in other.parameters()}) == len({id(p) for p in model.parameters()}), "ties stay"


def test_damage_is_noticed(tmp_path):
    model = write("gpt2", tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(CheckpointInvalid, match="is damaged"):
        load_weights(tmp_path / "checkpoint", model)


def test_weights_of_other_shapes_are_refused(tmp_path):
    write("gpt2", tmp_path / "checkpoint")
    uncut = make_loaded("gpt2", dtype=torch.bfloat16).model
    with pytest.raises(CheckpointInvalid, match="do not fit"):
        load_weights(tmp_path / "checkpoint", uncut)
