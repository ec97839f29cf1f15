import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sentinel.errors import ModelInvalid, PathNotAllowed
from sentinel.models.loaders.load import load_model
from sentinel.models.optimized.export import export
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import BuiltinModel, PathModel
from tests.unit.models.conftest import UNEVEN, make_loaded, survivors


def test_a_path_loads_ready_to_use(saved_models):
    source = PathModel(path=str(saved_models / "gpt2"))
    model, tokenizer, family = load_model(source, device="cpu", dtype="bfloat16", allowed_roots=[saved_models])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (model.training, model.config._attn_implementation) == (False, "sdpa")
    assert family.counts(model, "attention") == [4, 4, 4]
    assert tokenizer.pad_token == tokenizer.eos_token


def test_builtin_models_load():
    for name in ("gpt2", "llama"):
        model, _, family = load_model(BuiltinModel(id=name), device="cpu", dtype="float32")
        assert model.config.model_type in family.model_types


def test_paths_outside_the_roots_are_refused_before_anything_is_read(saved_models, tmp_path):
    for path in (saved_models / "gpt2", "/nowhere/at/all"):
        with pytest.raises(PathNotAllowed):
            load_model(PathModel(path=str(path)), device="cpu", dtype="float32", allowed_roots=[tmp_path])


def test_a_file_linked_from_outside_the_roots_is_refused(saved_models, tmp_path):
    folder = shutil.copytree(saved_models / "gpt2", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(saved_models / "gpt2" / "model.safetensors")
    source = PathModel(path=str(folder))
    with pytest.raises(PathNotAllowed):
        load_model(source, device="cpu", dtype="float32", allowed_roots=[tmp_path])
    load_model(source, device="cpu", dtype="float32", allowed_roots=[tmp_path, saved_models])


def test_missing_tensors_are_never_made_up(saved_models, tmp_path):
    folder = shutil.copytree(saved_models / "llama", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelInvalid, match="k_proj"):
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")


@pytest.fixture
def uneven(tmp_path):
    model, tokenizer, family = make_loaded("llama-gqa")
    kept = survivors(family, model, UNEVEN)
    apply_removal(model, family, UNEVEN)
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=tmp_path / "c", kept=kept)
    return tmp_path / "c"


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_damaged_uneven_checkpoints_are_invalid(uneven, change):
    weights = load_file(uneven / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    if change == "missing":
        del weights[name]
    elif change == "unknown":
        weights["model.stranger"] = torch.zeros(1)
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, uneven / "model.safetensors")
    with pytest.raises(ModelInvalid):
        load_model(PathModel(path=str(uneven)), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "layers",
    [
        {"0": {"num_attention_heads": -2, "num_key_value_heads": -1}},
        {"0": {"skip": ["attention"]}},
        {"0": {"num_attention_heads": 10, "num_key_value_heads": 5}},
        {"7": {"num_attention_heads": 2, "num_key_value_heads": 1}},
        {"-1": {"num_attention_heads": 2, "num_key_value_heads": 1}},
        {"0": {"num_attention_heads": "x", "num_key_value_heads": "x"}},
        {"x": {"num_attention_heads": 2, "num_key_value_heads": 1}},
        {"0": {"intermediate_size": 3}},
    ],
    ids=str,
)
def test_impossible_layer_configs_are_invalid(uneven, layers):
    config = json.loads((uneven / "config.json").read_text())
    (uneven / "config.json").write_text(json.dumps(config | {"per_layer_config": layers}))
    with pytest.raises(ModelInvalid):
        load_model(PathModel(path=str(uneven)), device="cpu", dtype="float32")


@pytest.fixture
def adapted(tmp_path):
    """A checkpoint whose first layer lost its second head, so that its norms have adaptations."""
    model, tokenizer, family = make_loaded("olmo2-gqa")
    removed = {"attention": {0: [1]}}
    kept = survivors(family, model, removed)
    apply_removal(model, family, removed)
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=tmp_path / "c", kept=kept)
    return tmp_path / "c"


@pytest.mark.parametrize(
    "change",
    [
        lambda adaptations, norm: adaptations.clear(),
        lambda adaptations, norm: adaptations.update({"model.layers.2.mlp": {"name": "NoInputs"}}),
        lambda adaptations, norm: norm.update(name="NoInputs"),
        lambda adaptations, norm: norm.update(width="8"),
        lambda adaptations, norm: norm.update(groups=[0, 2]),
        lambda adaptations, norm: norm.update(groups=[0, 2, 4]),
    ],
    ids=["none", "another", "name", "type", "few", "beyond"],
)
def test_adaptations_that_do_not_fit_are_invalid(adapted, change):
    config = json.loads((adapted / "config.json").read_text())
    norm = config["adaptations"]["model.layers.0.self_attn.q_norm"]
    assert norm == {"name": "KeptFeatures", "groups": [0, 2, 3], "width": 8}
    load_model(PathModel(path=str(adapted)), device="cpu", dtype="float32")
    change(config["adaptations"], norm)
    (adapted / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelInvalid, match="adaptations"):
        load_model(PathModel(path=str(adapted)), device="cpu", dtype="float32")


def test_generation_settings_survive_a_rebuild(uneven):
    settings = json.loads((uneven / "generation_config.json").read_text()) | {"max_length": 33}
    (uneven / "generation_config.json").write_text(json.dumps(settings))
    model = load_model(PathModel(path=str(uneven)), device="cpu", dtype="float32").model
    assert model.generation_config.max_length == 33
