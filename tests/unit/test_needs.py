"""What a run will need, from the headers of the weights and the spec."""

import json

import pytest

from sentinel.errors import ModelInvalid
from sentinel.model_shape import read_shape
from sentinel.models.loaders.load import load_model
from sentinel.needs import RECONSTRUCTION_COPIES, estimate
from sentinel.paths import BUILTIN_MODELS
from sentinel.pruning.reconstruction import HISTORY
from sentinel.spec import BuiltinModel, parse_spec
from tests.safetensors_files import write_safetensors


def needs(**sections):
    document = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.5}}, **sections}
    return estimate(parse_spec(document), read_shape(BUILTIN_MODELS / "llama"))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_headers_tell_what_the_loaded_model_has(name):
    model = load_model(BuiltinModel(id=name), device="cpu", dtype="float32").model
    shape = read_shape(BUILTIN_MODELS / name)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert len(shape.layers) == model.config.num_hidden_layers
    assert shape.embedding == (model.config.vocab_size, model.config.hidden_size)


def test_shards_are_added_up(tmp_path):
    for shard, layer in (("a", 0), ("b", 1)):
        tensors = {f"model.layers.{layer}.w": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}
        write_safetensors(tmp_path / f"model-{shard}.safetensors", tensors, data=bytes(128))
    weight_map = {"model.layers.0.w": "model-a.safetensors", "model.layers.1.w": "model-b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shape = read_shape(tmp_path)
    assert (shape.parameters, shape.stored_bytes) == (64, 256)


def test_what_lies_beside_the_weights_is_not_counted(tmp_path):
    tensors = {"model.layers.0.w": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}
    for name in ("model.safetensors", "model.fp16.safetensors"):
        write_safetensors(tmp_path / name, tensors, data=bytes(128))
    assert read_shape(tmp_path).parameters == 32


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, (9).to_bytes(8, "little") + b'{"a": 1}x', (14).to_bytes(8, "little") + b'{"a": {"b": 1}}'],
)
def test_a_damaged_header_is_said(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelInvalid, match="header"):
        read_shape(tmp_path)


def test_more_of_anything_needs_more():
    least = needs(heal=None, prune={"target": {"sparsity": 0.5}, "compensation": None})
    assert needs(prune={"target": {"sparsity": 0.5}, "compensation": None}).memory_bytes > least.memory_bytes
    fitted = needs(heal=None, prune={"target": {"sparsity": 0.5}, "calibration_sequences": 5000})
    assert fitted.memory_bytes > least.memory_bytes
    longer = {"source": "builtin", "sequence_length": 32768}
    assert needs(data=longer).memory_bytes > needs().memory_bytes


LESS = [{"method": "lora"}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 512}, {"stability_level": 1}]
MORE = [{"teacher_top_k": 256}, {"evaluate_every": 10}]


@pytest.mark.parametrize("settings", LESS + MORE, ids=str)
def test_the_ways_to_heal_differ_in_what_they_need(settings):
    # No repair, which may need more than healing.
    prune = {"target": {"sparsity": 0.5}, "compensation": None, "calibration_sequences": 4}
    usual = needs(prune=prune, heal={"batch_tokens": 4096}).memory_bytes
    asked = needs(prune=prune, heal={"batch_tokens": 4096, **settings}).memory_bytes
    assert (asked < usual) == (settings in LESS)
    assert asked != usual


def test_what_is_kept_of_the_dense_model_is_one_healings():
    one, four = ({"target": {"sparsity": 0.5}, "cycles": cycles} for cycles in (1, 4))
    kept, of_all_tokens = {"teacher_top_k": 256}, {"teacher_top_k": 10**6}
    once = needs(prune=one, heal=kept)
    assert needs(prune=four, heal=kept) == once
    assert needs(prune=four, heal=kept, controller={"kind": "rule"}).memory_bytes > 2 * once.memory_bytes
    vocabulary = read_shape(BUILTIN_MODELS / "llama").embedding[0]
    assert needs(prune=one, heal=of_all_tokens) == needs(prune=one, heal={"teacher_top_k": vocabulary})


def test_what_lies_in_the_host_s_memory_is_not_asked_of_a_gpu():
    prune = {"target": {"sparsity": 0.5}, "compensation": None, "calibration_sequences": 4}
    heal = {"stability_level": 1, "batch_tokens": 4096}
    assert needs(prune=prune, heal=heal, device="cuda") == needs(
        prune=prune, heal=heal | {"stability_level": 2, "evaluate_every": 5, "teacher_top_k": 64}, device="cuda"
    )


def test_what_the_estimate_says_of_the_fit_is_what_the_fit_does():
    assert RECONSTRUCTION_COPIES == 2 * HISTORY + 8


def test_a_stress_test_trains_a_third_model():
    usual = {"heal": None, "prune": {"target": {"sparsity": 0.5}, "compensation": None}}
    least = needs(**usual).memory_bytes
    trained = needs(**usual, evaluate={"stress": {"batch_tokens": 4096}}).memory_bytes
    assert trained > least
    assert needs(**usual, evaluate={"stress": {"batch_tokens": 4096, "damage": None}}).memory_bytes == trained
    assert needs(**usual, evaluate={"stress": {"alternation": None, "damage": None}}).memory_bytes == least


@pytest.mark.parametrize("stress", [{}, {"alternation": None, "damage": None}], ids=["trained", "measured"])
def test_a_stress_test_may_have_longer_windows_than_the_run(stress):
    usual = {"heal": None, "prune": {"target": {"sparsity": 0.5}, "compensation": None}}
    short, long = (
        needs(
            **usual,
            data={"source": "builtin", "sequence_length": 64},
            evaluate={"stress": {"domains": {"code": {"source": "builtin", "sequence_length": length}}, **stress}},
        ).memory_bytes
        for length in (64, 32768)
    )
    assert long > 1.5 * short


def test_an_exchange_needs_two_more_models():
    cycles = {"target": {"sparsity": 0.5}, "cycles": 2}
    without, with_exchange = needs(prune=cycles), needs(prune=cycles, grow={})
    assert with_exchange.memory_bytes - without.memory_bytes == 2 * 4 * without.parameters
