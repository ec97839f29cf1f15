"""The twin on JAX against torch: the same checkpoints, the same logits under the same gates, the same importances."""

import json
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sentinel.errors import ModelInvalid, ModelUnsupported
from sentinel.models.adaptive.gates import Gates
from sentinel.models.loaders.load import load_model
from sentinel.models.optimized.export import export
from sentinel.models.optimized.surgery import apply_removal
from sentinel.paths import BUILTIN_MODELS
from sentinel.pruning.functional.importances import added_damage
from sentinel.pruning.functional.passes import draw_labels
from sentinel.pruning.functional.rotary import frequencies_of
from sentinel.pruning.gate_gradients import draw_labels as draw_labels_in_torch
from sentinel.pruning.pruning_module_jax import PruningModule
from sentinel.pruning.ranking import by_rows
from sentinel.pruning.strategies import STRATEGIES
from sentinel.spec import BuiltinModel
from sentinel.utils.metrics import kl_divergences, next_token_losses
from tests.unit.models.conftest import UNITS, counts_of, make_loaded, survivors
from tests.unit.pruning.tiny import VOCABULARY, calibrate, tiny_llama

# Between two libraries that sum in float32, each in its own order.
CLOSE = 1e-4
WINDOWS = torch.randint(0, VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Compiling takes most of the time of these tests, and nothing here is large enough to run faster for it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def builtin(name: str) -> tuple[PruningModule, PreTrainedModel]:
    """A shipped model in JAX and in torch."""
    model = load_model(BuiltinModel(id=name), device="cpu", dtype="float32").model
    return PruningModule.load(BUILTIN_MODELS / name), model.requires_grad_(False)


@pytest.fixture(params=["gpt2", "llama"])
def twins(request):
    return builtin(request.param)


def logits_of(model: PreTrainedModel, windows: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=windows, use_cache=False).logits.numpy()


def gated(model: PreTrainedModel, rows: np.ndarray, windows: torch.Tensor) -> list[torch.Tensor]:
    """The logits in torch under each row of gates, those of all sites one behind the other."""
    sites = calibrate(model, windows).sites()
    found = []
    with torch.no_grad(), Gates(sites) as gates:
        for row in torch.tensor(rows):
            for index, values in enumerate(row.split([site.num_groups for site in sites])):
                gates.set(index, values)
            found.append(model(input_ids=windows, use_cache=False).logits)
    return found


def of_torch(strategy: str, model: PreTrainedModel, *units: str) -> list[np.ndarray]:
    rankings = STRATEGIES[strategy](calibrate(model, WINDOWS, *units))
    return [ranking.importance().numpy() for ranking in rankings]


def labels_of_torch(model: PreTrainedModel, *parts: torch.Tensor) -> np.ndarray:
    """The labels that torch draws for windows which it takes in these parts."""
    seed = calibrate(model, WINDOWS).seed
    log_p = [torch.tensor(logits_of(model, part)).log_softmax(-1) for part in parts]
    return torch.cat([draw_labels_in_torch(some, seed=seed + number) for number, some in enumerate(log_p)]).numpy()


def assert_same(found, expected, *, relative, absolute=0.0):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=relative, atol=absolute * np.abs(theirs).max())


def test_logits_are_those_of_torch(twins):
    module, model = twins
    assert np.abs(module.logits(WINDOWS) - logits_of(model, WINDOWS)).max() <= CLOSE


def test_gates_do_what_they_do_in_torch(twins):
    module, model = twins
    gates = np.random.default_rng(0).uniform(0, 2, len(module.gates())).astype(np.float32)
    (expected,) = gated(model, gates[None], WINDOWS)
    assert np.abs(module.logits(WINDOWS, gates) - expected.numpy()).max() <= CLOSE


def test_the_sites_are_those_of_torch(twins):
    module, model = twins
    expected = [(site.unit, site.layer, site.num_groups) for site in calibrate(model, WINDOWS).sites()]
    assert [site[:3] for site in module.sites()] == expected
    assert [site[:3] for site in module.sites(["mlp"])] == expected[1::2]


def test_many_masks_at_once_lose_what_each_loses_in_torch(twins):
    module, model = twins
    # As many as there are attention groups, so that `ablation` finds the function compiled.
    shape = (sum(site.num_groups for site in module.sites(["attention"])), len(module.gates()))
    masks = (np.random.default_rng(1).random(shape) < 0.9).astype(np.float32)
    dense, under = torch.tensor(logits_of(model, WINDOWS)), gated(model, masks, WINDOWS)
    found = module.losses_of_masks(masks, WINDOWS)
    losses = [float(next_token_losses(logits, WINDOWS).double().mean()) for logits in under]
    divergences = [float(kl_divergences(dense, logits).double().mean()) for logits in under]
    np.testing.assert_allclose(found.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(found.kl, divergences, rtol=1e-4)


def test_ablation_is_that_of_torch(twins):
    module, model = twins
    found = module.importance("ablation", WINDOWS, units=["attention"])
    assert_same(found, of_torch("ablation", model, "attention"), relative=1e-4)


def test_taylor_is_that_of_torch(twins):
    module, model = twins
    assert_same(module.importance("taylor", WINDOWS), of_torch("taylor", model), relative=1e-4, absolute=1e-5)


def test_fisher_is_that_of_torch_for_the_same_labels():
    module, model = builtin("gpt2")
    labels = labels_of_torch(model, *WINDOWS.chunk(2))
    found, expected = module.importance("fisher", WINDOWS, labels=labels), of_torch("fisher", model)
    assert_same(found[::2], expected[::2], relative=1e-4, absolute=1e-5)
    # Among many neurons the last digit decides places of the order, and so who adds what two have in common.
    assert_same([part.sum() for part in found], [part.sum() for part in expected], relative=1e-4)


def test_energy_is_that_of_torch_for_the_same_labels():
    module, model = builtin("llama")
    labels = np.zeros(WINDOWS.shape, dtype=np.int64)
    labels[:1] = labels_of_torch(model, WINDOWS[:1])  # as many as the sensitivity looks at
    assert_same(module.importance("energy", WINDOWS, labels=labels), of_torch("energy", model), relative=1e-4)


def test_damage_is_added_in_the_greedy_order_of_torch():
    rows = torch.randn(7, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    np.testing.assert_allclose(added_damage(rows.numpy()), by_rows(rows).importance().numpy(), rtol=1e-9)


def saved(folder: Path, config: PreTrainedConfig, **options) -> PreTrainedModel:
    """A model of random weights, biases and norms too, and its checkpoint."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            parameter.copy_(parameter.bfloat16())
    model.save_pretrained(folder, **options)
    return model


def amend(folder: Path, **fields: object) -> None:
    """Change what config.json says; None takes a field out."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def assert_twin(folder: Path, model: PreTrainedModel) -> PruningModule:
    module = PruningModule.load(folder)
    windows = WINDOWS[:2] % model.config.vocab_size
    assert np.abs(module.logits(windows) - logits_of(model, windows)).max() <= CLOSE
    return module


SMALL = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def test_a_llama_with_everything_else_in_bfloat16_and_many_files(tmp_path):
    config = LlamaConfig(
        **SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=10, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=False, hidden_act="gelu", rms_norm_eps=1e-3, rope_parameters=LLAMA3,
    )  # fmt: skip
    model = saved(tmp_path, config)
    narrow = {name: value.bfloat16() for name, value in model.state_dict().items()}
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, state_dict=narrow, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_twin(tmp_path, model)


def test_a_mistral_without_a_window_and_with_one_kv_head(tmp_path):
    config = MistralConfig(**SMALL, num_attention_heads=3, num_key_value_heads=1, head_dim=6, sliding_window=None)
    assert_twin(tmp_path, saved(tmp_path, config))


def test_a_gpt2_with_everything_else_saved_without_its_head(tmp_path):
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_head=3, n_layer=2, n_inner=20, n_positions=40, activation_function="relu",
        scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True, layer_norm_epsilon=1e-3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = saved(tmp_path, config)
    (tmp_path / "model.safetensors").unlink()
    model.transformer.save_pretrained(tmp_path)
    assert_twin(tmp_path, model)


@pytest.mark.parametrize("variant", ["gpt2", "llama-gqa"])
def test_a_checkpoint_of_ours_whose_layers_differ(tmp_path, variant):
    """One layer has lost its attention, one its MLP."""
    model, tokenizer, family = make_loaded(variant)
    groups, neurons = (range(counts[0]) for counts in counts_of(family, model).values())
    removed = {"attention": {0: [1], 1: groups}, "mlp": {0: [0, 1, 5], 2: neurons}}
    kept = survivors(family, model, removed)
    apply_removal(model, family, removed)
    folder = tmp_path / "checkpoint"
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=folder, kept=kept)
    module = assert_twin(folder, model)
    counts = {unit: [n for kind, _, n, _ in module.model.sites(module.params) if kind == unit] for unit in UNITS}
    assert counts == counts_of(family, model)
    assert [site[:2] for site in module.sites()] == [("attention", 0), ("mlp", 0), ("mlp", 1), ("attention", 2)]
    importance = module.importance("energy", [[1, 2]])
    assert [len(scores) for scores in importance] == [site.num_groups for site in module.sites()]
    assert all(np.isfinite(scores).all() for scores in importance)


ROTARY = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0},
    "llama3": LLAMA3,
}


@pytest.mark.parametrize("kind", ROTARY)
def test_frequencies_are_those_of_transformers(kind):
    config = LlamaConfig(**SMALL, num_attention_heads=1, head_dim=64, rope_parameters=dict(ROTARY[kind]))
    rotary = AutoModelForCausalLM.from_config(config).model.rotary_emb
    expected = rotary.inv_freq if kind == "default" else ROPE_INIT_FUNCTIONS[kind](config)[0]
    np.testing.assert_allclose(frequencies_of(config.to_dict(), head_dim=64), expected, rtol=1e-6)
    scaling = {"type" if key == "rope_type" else key: value for key, value in ROTARY[kind].items()}
    older = {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    np.testing.assert_allclose(frequencies_of(older, head_dim=64), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A small Llama; copy it before you change it."""
    folder = tmp_path_factory.mktemp("plain")
    saved(folder, LlamaConfig(**SMALL | {"num_hidden_layers": 1}, num_attention_heads=4, num_key_value_heads=2))
    return folder


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    for file in plain.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


UNSUPPORTED = {
    "supported are gpt2, llama, mistral": {"model_type": "qwen2"},
    "sliding window": {"model_type": "mistral", "sliding_window": 8},
    "'dynamic'": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "part of a head": {"partial_rotary_factor": 0.5},
    "'quick_gelu'": {"hidden_act": "quick_gelu"},
    "Sentinel did not write it": {"per_layer_config": {"0": {"intermediate_size": 4}}},
    "cannot share 3 KV heads": {"num_key_value_heads": 3},
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_it_would_compute_otherwise_is_refused(folder, message):
    amend(folder, **UNSUPPORTED[message])
    with pytest.raises(ModelUnsupported, match=message):
        PruningModule.load(folder)


def test_weights_of_eight_bits_are_refused(folder):
    file = folder / "model.safetensors"
    eight = {name: weight.to(torch.float8_e4m3fn) for name, weight in load_file(file).items()}
    save_file(eight, file, metadata={"format": "pt"})
    with pytest.raises(ModelUnsupported, match="Weights of this type"):
        PruningModule.load(folder)


def test_a_mistral_that_does_not_speak_of_its_window_has_one(folder):
    amend(folder, model_type="mistral")
    with pytest.raises(ModelUnsupported, match="sliding window"):
        PruningModule.load(folder)


INVALID = {
    "'hidden_size'": {"hidden_size": None},
    "num_layers is 1.5": {"num_hidden_layers": 1.5},
    "queries_per_kv_head is 0": {"num_attention_heads": 0, "head_dim": 8},
    "lack layers.1.self_attn.o_proj.weight": {"num_hidden_layers": 2},
    "embed_tokens.weight has the shape": {"vocab_size": VOCABULARY + 1},
    "layers.0.self_attn.k_proj.weight has the shape": {"num_key_value_heads": 4},
    "lack layers.0.mlp.gate_proj.bias": {"mlp_bias": True},
}


@pytest.mark.parametrize("message", INVALID)
def test_weights_that_do_not_fit_are_refused(folder, message):
    amend(folder, **INVALID[message])
    with pytest.raises(ModelInvalid, match=message):
        PruningModule.load(folder)


def test_weights_without_the_head_of_an_untied_model_are_refused(tmp_path):
    tiny_llama().model.save_pretrained(tmp_path)
    with pytest.raises(ModelInvalid, match=r"lack lm_head\.weight"):
        PruningModule.load(tmp_path)


MANY = WINDOWS[:1, :2].repeat(2000, 1).numpy()


def test_labels_are_drawn_from_the_predictions(plain):
    module, windows = PruningModule.load(plain), MANY
    drawn = np.asarray(draw_labels(module.model, module.params, windows, 3))
    assert np.array_equal(drawn, draw_labels(module.model, module.params, windows, 3))
    probabilities = np.asarray(jax.nn.softmax(module.logits(windows[:1]))[0])
    for position in range(2):
        shares = np.bincount(drawn[:, position], minlength=VOCABULARY) / len(drawn)
        standard_error = np.sqrt(probabilities[position] / len(drawn))
        assert (np.abs(shares - probabilities[position]) <= 5 * standard_error + 1 / len(drawn)).all()


def test_without_labels_they_are_drawn_by_the_seed(plain):
    module, windows = PruningModule.load(plain), MANY
    drawn = draw_labels(module.model, module.params, windows, 3)
    given = module.importance("fisher", windows, labels=drawn)
    for ours, theirs in zip(module.importance("fisher", windows, seed=3), given, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("strategy", ["taylor", "fisher", "energy", "ablation"])
def test_of_no_sites_there_are_no_importances(plain, strategy):
    assert PruningModule.load(plain).importance(strategy, [[1, 2]], units=()) == []


def test_every_seed_that_a_spec_may_have_draws_labels(plain):
    module = PruningModule.load(plain)
    draws = [np.asarray(draw_labels(module.model, module.params, MANY, seed)) for seed in (0, 2**31, 2**63 - 1)]
    assert not any(np.array_equal(a, b) for a, b in pairwise(draws))


REFUSED = {
    "from 0 to 60": lambda module: module.logits([[1, VOCABULARY]]),
    "whole numbers": lambda module: module.logits([[0.5, 1.0]]),
    r"these are \(3,\)": lambda module: module.logits([1, 2, 3]),
    "of 2 to any number": lambda module: module.logits([[1]]),
    r"these are \(0, 8\)": lambda module: module.importance("taylor", np.zeros((0, 8), dtype=int)),
    r"takes \(gates\)": lambda module: module.logits([[1, 2]], np.ones(3)),
    r"takes \(rows, gates\)": lambda module: module.losses_of_masks(module.gates(), [[1, 2]]),
    "taylor, fisher, energy, ablation": lambda module: module.importance("wanda", [[1, 2]]),
    r"no units \['neurons'\] here; there are attention, mlp": lambda module: module.importance(
        "taylor", [[1, 2]], units=["neurons"]
    ),
    "The labels have the shape": lambda module: module.importance("fisher", [[1, 2]], labels=[[1]]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_that_do_not_fit_are_refused(plain, message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message](PruningModule.load(plain))


def test_a_window_longer_than_a_gpt2_has_positions_for_is_refused():
    module, _ = builtin("gpt2")
    with pytest.raises(ValueError, match="of 2 to 256 tokens"):
        module.logits(np.ones((1, 257), dtype=int))


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_it_loads_no_torch():
    names = "[name for name in ('torch', 'transformers') if name in sys.modules]"
    assert in_a_fresh_process(f"import sys, sentinel.pruning.pruning_module_jax; print({names})") == "[]"


def test_without_jax_the_import_names_the_extra():
    code = """
import sys
sys.modules["jax"] = None
try:
    import sentinel.pruning.pruning_module_jax
except ImportError as error:
    print(error.code, error.instance_next_step)
"""
    assert in_a_fresh_process(code).startswith("jax_missing Install it, pip install 'sentinel-pruning[jax]'")
