"""What is checked before the first cycle: a spec against the model that it names."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sentinel.data.loaders.splits import Windows
from sentinel.data.loaders.token_cache import TokenCache
from sentinel.errors import DataInvalid, ExportImpossible, SpecInvalid
from sentinel.inputs import check_inputs, load_inputs
from sentinel.models.families import family_of
from sentinel.spec import parse_spec


def spec(model="builtin/llama", form="auto", gguf=False, **prune):
    return parse_spec(
        {
            "model": model,
            "data": {"source": "builtin", "sequence_length": 32},
            "prune": {"target": {"sparsity": 0.5}, "calibration_sequences": 2, "allocation": "uniform", **prune},
            "heal": None,
            "evaluate": {"tokens": 64},
            "export": {"form": form, "gguf": gguf},
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def inputs():
    """One model for all: checking changes nothing."""
    return {model: load_inputs(spec(model), allowed_roots=None) for model in ("builtin/gpt2", "builtin/llama")}


def test_windows_are_as_many_as_the_spec_can_use(inputs):
    assert inputs["builtin/gpt2"].calibration.shape == (2, 32)
    assert inputs["builtin/gpt2"].training.shape == (0, 32)
    assert inputs["builtin/gpt2"].evaluation.shape == (2, 32)


def stressed(**stress):
    document = spec().model_dump(mode="json")
    return parse_spec(document | {"evaluate": {"tokens": 1024, "stress": {"tokens": 512, **stress}}})


def test_a_stress_test_has_texts_and_probes_of_its_own():
    some = {"alternation": {"rounds": 2, "steps": 3}, "damage": {"steps": 8}, "batch_tokens": 64}
    loaded = load_inputs(stressed(**some), allowed_roots=None)
    assert loaded.training.shape == (16, 32)  # for eight steps of two windows
    assert loaded.domains["programs"].training.shape == (3, 128)
    assert loaded.domains["programs"].evaluation.shape == (4, 128)
    assert loaded.domains["programs"].text == "built-in programs"
    assert [len(probe.sequences) for probe in loaded.probes if probe.name != "copying"] == [256, 256]
    (copying,) = (probe for probe in loaded.probes if probe.name == "copying")
    assert 0 < len(copying.sequences) <= 16  # of as many windows as the stress test measures
    assert load_inputs(stressed(probes=None, alternation=None, damage=None), allowed_roots=None).probes == []


def test_windows_of_a_domain_must_fit_the_model_too():
    domains = {"code": {"source": "builtin", "id": "programs", "sequence_length": 1024}}
    with pytest.raises(DataInvalid, match=r"code\.sequence_length is 1024"):
        load_inputs(stressed(domains=domains), allowed_roots=None)


@pytest.mark.parametrize("model", ["builtin/gpt2", "builtin/llama"])
@pytest.mark.parametrize(
    "prune",
    [
        {},
        {"allocation": "global", "target": {"sparsity": 0.3}},
        {"units": ["mlp"], "target": {"sparsity": 0.4}},
        {"units": ["attention", "mlp"], "target": {"flops": 1.0e6}},
        {"units": ["layer"], "allocation": "cost"},
        {"protected_layers": [1], "target": {"sparsity": 0.25}},
        {"target": {"sparsity": 0.0}},
    ],
)
def test_what_can_be_reached_passes(inputs, model, prune):
    check_inputs(spec(model, **prune), inputs[model])


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"target": {"sparsity": 0.95}}, "can be saved.*minimum_per_layer"),
        (
            {"target": {"sparsity": 0.95}, "allocation": "global", "units": ["mlp"], "minimum_per_layer": 4},
            "can be saved",
        ),
        ({"target": {"parameters": 1000}}, "can be saved"),
        ({"target": {"kv_bytes": 8}, "units": ["mlp"]}, "; with these units and floors 0 can be saved"),
        ({"target": {"sparsity": 0.01}}, "sparsity 0.01 removes nothing"),
        ({"protected_layers": [0, 7, 9]}, r"names \[7, 9\]; the model has layers 0 to "),
    ],
)
def test_what_cannot_be_reached_is_refused_with_what_to_change(inputs, prune, message):
    with pytest.raises(SpecInvalid, match=message):
        check_inputs(spec(**prune), inputs["builtin/llama"])


@pytest.mark.parametrize(
    ("model", "prune", "message"),
    [
        ("builtin/llama", {"allocation": "global"}, "equal counts in every layer"),
        ("builtin/llama", {"protected_layers": [0], "target": {"sparsity": 0.25}}, "protected layers, or a controller"),
        ("builtin/gpt2", {}, "cannot have"),
    ],
)
def test_a_stock_class_that_will_not_do_is_refused_at_once(inputs, model, prune, message):
    with pytest.raises(ExportImpossible, match=message):
        check_inputs(spec(model, form="stock", **prune), inputs[model])
    check_inputs(spec(model, form="auto", **prune), inputs[model])


def test_a_stock_class_is_refused_where_a_controller_may_protect_what_grows(inputs):
    def decided(**sections):
        document = spec(form="stock", cycles=3).model_dump(mode="json")
        return parse_spec({**document, "heal": {"steps": 2}, "controller": {"kind": "rule"}, **sections})

    with pytest.raises(ExportImpossible, match="controller that protects what grows"):
        check_inputs(decided(grow={"fraction": 0.1}), inputs["builtin/llama"])
    check_inputs(decided(), inputs["builtin/llama"])


def test_a_stock_class_that_will_do_is_not(inputs):
    check_inputs(spec(form="stock"), inputs["builtin/llama"])
    check_inputs(spec("builtin/gpt2", form="stock", units=["mlp"]), inputs["builtin/gpt2"])


@pytest.fixture(scope="module")
def qwen3(inputs):
    """A random one, of whose class llama.cpp knows none with layers that differ."""
    llama = inputs["builtin/llama"]
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    dense = Qwen3ForCausalLM(Qwen3Config(vocab_size=llama.dense.config.vocab_size, **sizes, **heads))
    return replace(llama, dense=dense, family=family_of("qwen3"))


@pytest.mark.parametrize("prune", [{"allocation": "global"}, {"protected_layers": [0], "target": {"sparsity": 0.25}}])
def test_a_gguf_file_that_cannot_hold_layers_that_differ_is_refused_at_once(inputs, qwen3, prune):
    with pytest.raises(ExportImpossible, match="knows no qwen3 model whose layers do"):
        check_inputs(spec(gguf=True, **prune), qwen3)
    check_inputs(spec(gguf=True), qwen3)
    check_inputs(spec(gguf=True, allocation="global", target={"sparsity": 0}), qwen3)
    check_inputs(spec(gguf=True, **prune), inputs["builtin/llama"])


def test_windows_longer_than_the_model_reads_are_refused():
    document = spec().model_dump(mode="json")
    document["data"]["sequence_length"] = 4096
    with pytest.raises(DataInvalid, match="4096, but the model reads"):
        load_inputs(parse_spec(document), allowed_roots=None)


def loaded_from(tmp_path, train, **sections):
    (tmp_path / "train.txt").write_text("\n\n".join(train))
    document = spec().model_dump(mode="json") | sections
    data = {"source": "path", "train": str(tmp_path / "train.txt"), "sequence_length": 32, "held_out": 0.5}
    return load_inputs(parse_spec({**document, "data": data}), allowed_roots=None)


STORIES = [f"Once there was a dog with {n} balls." * 5 for n in range(12)]


def test_calibration_healing_and_evaluation_share_nothing(tmp_path):
    heal = {"steps": 1, "batch_tokens": 64}
    loaded = loaded_from(tmp_path, [*STORIES, *STORIES[:3], *STORIES[3:6]], heal=heal)
    assert loaded.calibration.shape == loaded.training.shape == (2, 32)
    every = loaded_from(tmp_path, [*STORIES, *STORIES[:3], *STORIES[3:6]], heal={"epochs": 1})
    assert every.calibration.shape == (2, 32)
    assert len(every.training) > 2
    for inputs in (loaded, every):
        rows = torch.cat([inputs.calibration, inputs.training])
        assert len(rows.unique(dim=0)) == len(rows)
    assert loaded.text == "last 50% of train.txt, without 6 document(s) that are training documents too"


def test_text_for_calibration_alone_is_refused_where_healing_is_asked_for(tmp_path):
    with pytest.raises(DataInvalid, match=r"2 window.* leaves none to heal on"):
        loaded_from(tmp_path, ["One day a dog saw a ball. " * 10, STORIES[0]], heal={"steps": 1})
    assert len(loaded_from(tmp_path, ["One day a dog saw a ball. " * 10, STORIES[0]]).calibration) == 2


def test_a_second_run_takes_the_tokens_of_the_first(tmp_path, monkeypatch):
    """Shown by what cannot come from the text: tokens that somebody put in their place."""
    monkeypatch.setenv("SENTINEL_CACHE", str(tmp_path / "cache"))
    first, again = (loaded_from(tmp_path, STORIES) for _ in range(2))
    assert torch.equal(first.calibration, again.calibration)
    (file,) = (tmp_path / "cache" / "tokens").iterdir()
    file.unlink()
    ones = Windows(training=torch.ones(2, 32).long(), evaluation=torch.ones(2, 32).long(), left_out=7)
    TokenCache(folder=file.parent).windows(file.stem, lambda: ones)
    found = loaded_from(tmp_path, STORIES)
    assert torch.equal(found.calibration, ones.training)
    assert "without 7 document(s)" in found.text
    assert not torch.equal(loaded_from(tmp_path, STORIES[::-1]).calibration, ones.training)
