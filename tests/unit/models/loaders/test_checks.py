import json
import pickle
import shutil
from pathlib import Path

import pytest

from sentinel.errors import ModelInvalid, ModelNotFound, ModelUnsafe, ModelUnsupported, SentinelError
from sentinel.models.loaders.checks import check_folder
from sentinel.models.loaders.load import load_model
from sentinel.spec import PathModel


@pytest.fixture
def folder(saved_models, tmp_path) -> Path:
    return shutil.copytree(saved_models / "llama", tmp_path / "model")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path) -> SentinelError:
    """The error of the whole loader, which must be that of the checks."""
    with pytest.raises(SentinelError) as found:
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    assert found.value.as_dict()["next_step"]
    return found.value


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("a-pickle-was-loaded"),))


def test_a_good_folder_passes(folder):
    checked = check_folder(folder)
    assert (checked.path, checked.uneven, checked.config["model_type"]) == (folder, False, "llama")


def test_a_missing_folder_or_config_is_not_found(folder, tmp_path):
    assert isinstance(refusal(tmp_path / "nowhere"), ModelNotFound)
    (folder / "config.json").unlink()
    assert isinstance(refusal(folder), ModelNotFound)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", "[" * 100_000], ids=["cut", "list", "binary", "deep"])
def test_a_config_that_does_not_parse_is_invalid(folder, text):
    (folder / "config.json").write_text(text)
    assert isinstance(refusal(folder), ModelInvalid)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}, "auto_map"),
        ({"auto_map": {"AutoModelForCausalLM": "someone/repo--modeling_evil.Evil"}}, "auto_map"),
        ({"auto_map": {"AutoConfig": "modeling_sentinel_llama.SentinelLlamaConfig"}}, "auto_map"),
        ({"auto_map": {"AutoConfig": "modeling_evil.Evil"}, "per_layer_config": {}}, "auto_map"),
        ({"auto_map": None}, "auto_map"),
        ({"text_config": {"auto_map": {"AutoConfig": "evil.Evil"}}}, "auto_map"),
        ({"_attn_implementation_internal": "eager"}, "_attn_implementation_internal"),
        ({"sub": [{"_experts_implementation_internal": "x"}]}, "_experts_implementation_internal"),
        ({"attn_implementation": "someone/kernel"}, "someone/kernel"),
        ({"_attn_implementation": "kernels-community/flash-attn@main"}, "kernels-community"),
        ({"vision": {"base": "someone/base_model"}}, "someone/base_model"),
        ({"parts": ["someone/a", "eager"]}, "someone/a"),
    ],
)
def test_configs_that_bring_or_fetch_code_are_unsafe(folder, changes, says):
    edit(folder / "config.json", **changes)
    error = refusal(folder)
    assert isinstance(error, ModelUnsafe)
    assert says in error.message


def test_danger_is_found_at_any_depth(folder):
    value: dict = {"auto_map": {}}
    for _ in range(900):
        value = {"a": value}
    edit(folder / "config.json", **value)
    assert isinstance(refusal(folder), ModelUnsafe)


def test_where_a_config_came_from_is_no_danger(folder):
    edit(folder / "config.json", _name_or_path="someone/llama")
    load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_pickles_alone_are_unsafe_and_never_opened(folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert isinstance(refusal(folder), ModelUnsafe)
    assert not Path("a-pickle-was-loaded").exists()


def test_pickles_beside_safetensors_are_never_opened(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    assert not Path("a-pickle-was-loaded").exists()


def test_no_weights_at_all_are_not_found(folder):
    (folder / "model.safetensors").unlink()
    assert isinstance(refusal(folder), ModelNotFound)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x.safetensors", "x.bin"]
)
def test_an_index_that_points_elsewhere_is_unsafe(folder, shard):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    error = refusal(folder)
    assert isinstance(error, ModelUnsafe)
    assert repr(shard) in error.message


@pytest.mark.parametrize("index", [{"weight_map": {"a": "gone.safetensors"}}, {}, {"weight_map": []}])
def test_a_broken_index_is_invalid(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert isinstance(refusal(folder), ModelInvalid)


def test_adapters_and_tokenizers_with_code_are_unsafe(folder):
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    assert isinstance(refusal(folder), ModelUnsafe)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    assert "Merge the adapter" in refusal(folder).as_dict()["next_step"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mamba"},
        {"model_type": None},
        {"model_type": ["llama"]},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"per_layer_config": {"0": {"num_attention_heads": 2, "num_key_value_heads": 1}}},
        {"num_key_value_heads": 3},
    ],
    ids=str,
)
def test_other_architectures_are_unsupported(folder, changes):
    edit(folder / "config.json", **changes)
    assert isinstance(refusal(folder), ModelUnsupported)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": "many"}, {"hidden_size": 64}, {"num_hidden_layers": 4}, {"hidden_act": "no-such"}],
    ids=str,
)
def test_configs_that_do_not_fit_their_weights_are_invalid(folder, changes):
    edit(folder / "config.json", **changes)
    assert isinstance(refusal(folder), ModelInvalid)


def test_cut_off_weights_are_invalid(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert isinstance(refusal(folder), ModelInvalid)
