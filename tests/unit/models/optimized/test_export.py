import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sentinel.errors import ExportImpossible
from sentinel.models.checking.fresh_process import Reloaded, reload_elsewhere
from sentinel.models.loaders.load import LoadedModel, load_model
from sentinel.models.optimized.export import export, resolve_form
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import PathModel
from tests.unit.models.conftest import CONFIGS, EVEN, SHARED_MODELS, UNEVEN, make_loaded, survivors

TRAINED = SHARED_MODELS / "stories260K"
Removal = Mapping[str, Mapping[int, Sequence[int]]]
TOKENS = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(2))
# The first layer's attention tells caches how long they are; here it has no heads.
WITHOUT_ATTENTION = {"attention": {0: range(4)}, "mlp": {1: range(48)}}


@dataclass(frozen=True)
class Case:
    variant: str
    removed: str
    form: str
    dtype: str
    used: str

    def __str__(self) -> str:
        return f"{self.variant}-{self.form}-{self.removed}-{self.dtype}"

    def remove(self):
        return {"nothing": {}, "uneven": UNEVEN, "even": EVEN, "whole": WITHOUT_ATTENTION}[self.removed]


CASES = [
    *(Case(name, "uneven", "auto", "bfloat16", "remote_code") for name in ("gpt2", "llama-gqa", "olmo2-gqa")),
    *(Case(name, "whole", "auto", "float32", "remote_code") for name in ("gpt_neox", "llama-gqa", "gemma2-gqa")),
    Case("llama-gqa", "uneven", "remote_code", "float32", "remote_code"),
    Case("llama-gqa", "even", "stock", "bfloat16", "stock"),
    Case("gpt2", "uneven", "masked", "bfloat16", "masked"),
    Case("gpt2", "nothing", "auto", "float32", "stock"),
]


# Heads left in each layer of a trained model, by the form that it can take then.
TRAINED_HEADS = {"stock": [3] * 5, "remote_code": [3, 2, 4, 0, 2]}


@dataclass(frozen=True)
class Done:
    checkpoint: Path
    used: str
    logits: torch.Tensor
    tokens: torch.Tensor
    found: Reloaded


def _write(loaded: LoadedModel, removed: Removal, folder: Path, *, form: str, dtype: str) -> dict[str, object]:
    model, tokenizer, family = loaded
    kept = survivors(family, model, removed)
    apply_removal(model, family, removed)
    options = {"family": family, "form": form, "dtype": dtype, "kept": kept}
    used = export(model, tokenizer, directory=folder / "checkpoint", **options)
    if used == "masked":
        model = load_model(PathModel(path=str(folder / "checkpoint")), device="cpu", dtype=dtype).model
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **options)
    logits = model(TOKENS).logits.detach()
    return {"checkpoint": folder / "checkpoint", "used": used, "logits": logits, "tokens": tokens}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Every case, exported here and loaded elsewhere."""
    root = tmp_path_factory.mktemp("exported")
    written = {}
    for case in CASES:
        loaded = make_loaded(case.variant, dtype=getattr(torch, case.dtype))
        written[str(case)] = _write(loaded, case.remove(), root / str(case), form=case.form, dtype=case.dtype)
    for used, left in TRAINED_HEADS.items() if TRAINED.is_dir() else ():
        loaded = load_model(PathModel(path=str(TRAINED)), device="cpu", dtype="float32")
        removed = {"attention": {layer: range(count, 4) for layer, count in enumerate(left)}}
        written[f"trained-{used}"] = _write(loaded, removed, root / f"trained-{used}", form="auto", dtype="float32")
    found = reload_elsewhere(root, TOKENS)
    return {name: Done(**here, found=found[name]) for name, here in written.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_cache_generates_the_same_tokens_elsewhere(case, exported):
    result = exported[str(case)]
    assert result.used == case.used
    assert torch.equal(result.found.computed["logits"], result.logits)
    for cache in ("dynamic", "no_cache", "static") if case.dtype == "float32" else ("dynamic",):
        assert torch.equal(result.found.computed[cache], result.tokens), cache
    assert result.found.log == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_lies_in_the_folder(case, exported):
    folder = exported[str(case)].checkpoint
    suffixes = {file.suffix for file in folder.iterdir()}
    assert suffixes == {".json", ".safetensors"} | ({".py"} if case.used == "remote_code" else set())
    assert (folder / "generation_config.json").exists()
    for file in folder.glob("*.json"):
        assert str(folder.parents[1]) not in file.read_text(), file.name
        assert "_name_or_path" not in file.read_text()
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert {str(tensors.get_tensor(k).dtype) for k in tensors.keys()} == {f"torch.{case.dtype}"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == case.dtype


def test_the_modelling_file_needs_nothing_but_torch_and_transformers(exported):
    for result in exported.values():
        for file in result.checkpoint.glob("*.py"):
            modules = {name.partition(".")[0] for name in imported(file.read_text())}
            assert modules <= {"collections", "typing", "torch", "transformers"}


def imported(code: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(code)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def test_a_removed_attention_is_declared_as_transformers_does(exported):
    config = json.loads((exported["llama-gqa-auto-whole-float32"].checkpoint / "config.json").read_text())
    assert config["per_layer_config"] == {"0": {"skip": ["attention"]}, "1": {"intermediate_size": 0}}
    assert config["adaptations"] == {"model.layers.0.self_attn": {"name": "NoAttention", "output": "o_proj"}}


def test_another_type_is_written_without_changing_the_model(tmp_path):
    model, tokenizer, family = make_loaded("llama-gqa")
    before = model(TOKENS).logits
    options = {"family": family, "form": "auto", "dtype": "bfloat16", "kept": survivors(family, model, {})}
    assert export(model, tokenizer, directory=tmp_path / "c", **options) == "stock"
    assert torch.equal(model(TOKENS).logits, before)
    again = load_model(PathModel(path=str(tmp_path / "c")), device="cpu", dtype="bfloat16").model
    assert torch.equal(again(TOKENS).logits, model.to(torch.bfloat16)(TOKENS).logits)
    saved = load_file(tmp_path / "c" / "model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.bfloat16}


def test_tied_weights_are_written_once_in_any_type(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    kept = survivors(family, model, {})
    export(model, tokenizer, family=family, form="auto", dtype="bfloat16", directory=tmp_path / "c", kept=kept)
    assert "lm_head.weight" not in load_file(tmp_path / "c" / "model.safetensors")


def test_masked_slices_stay_zero_after_training(variant, tmp_path):
    model, tokenizer, family = make_loaded(variant)
    kept = survivors(family, model, UNEVEN)
    apply_removal(model, family, UNEVEN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(TOKENS).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    export(model, tokenizer, family=family, form="masked", dtype="float32", directory=tmp_path / "c", kept=kept)
    masked, _, _ = load_model(PathModel(path=str(tmp_path / "c")), device="cpu", dtype="float32")
    assert (masked(TOKENS).logits - model(TOKENS).logits).abs().max() <= 1e-5
    for unit, layers in UNEVEN.items():
        dense_count = family.dense_count(masked.config, unit)
        assert family.counts(masked, unit) == [dense_count] * 3
        for layer, groups in layers.items():
            for part in family.parts(masked, layer, unit):
                for group in groups:
                    assert part.weight_of(group, num_groups=dense_count).count_nonzero() == 0


def test_a_checkpoint_replaces_an_older_one_as_a_whole(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "modeling_sentinel_gpt2.py").write_text("old")
    kept = survivors(family, model, {})
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=directory, kept=kept)
    assert not list(directory.glob("*.py"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_an_impossible_form_is_refused_before_anything_is_written(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    kept = survivors(family, model, EVEN)
    apply_removal(model, family, EVEN)
    options = {"family": family, "dtype": "float32", "directory": tmp_path / "c"}
    with pytest.raises(ExportImpossible):
        export(model, tokenizer, form="stock", kept=kept, **options)
    with pytest.raises(ValueError, match="kept"):
        export(model, tokenizer, form="auto", kept={**kept, "mlp": [[0]] * 3}, **options)
    assert list(tmp_path.iterdir()) == []


def counts(attention, mlp=None):
    return {"attention": attention, "mlp": mlp or [48] * 3}


@pytest.mark.parametrize(
    ("name", "counts", "form", "used"),
    [
        ("llama-gqa", counts([3, 3, 3]), "auto", "stock"),
        ("llama-gqa", counts([3, 2, 3]), "auto", "remote_code"),
        ("llama-gqa", counts([3, 3, 3], [40, 40, 41]), "auto", "remote_code"),
        ("llama-gqa", counts([3, 3, 3], [40] * 3), "auto", "stock"),
        ("llama-gqa", counts([0, 0, 0]), "auto", "remote_code"),
        ("llama-gqa", counts([3, 3, 3]), "remote_code", "remote_code"),
        ("gpt2", counts([4] * 3, [100] * 3), "auto", "stock"),
        ("gpt2", counts([3, 3, 3], [128] * 3), "auto", "remote_code"),
        ("gpt2", counts([3, 3, 3]), "masked", "masked"),
        ("llama-gqa-biased", counts([2, 2, 2]), "auto", "stock"),
        ("llama-gqa-biased", counts([3, 3, 3]), "auto", "remote_code"),
    ],
)
def test_the_form_follows_from_the_counts(name, counts, form, used):
    assert resolve_form(CONFIGS[name], counts, form) == used


@pytest.mark.parametrize(
    ("name", "counts", "reason"),
    [
        ("llama-gqa", counts([3, 2, 3]), r"same number.*\[3, 2, 3\]"),
        ("llama-gqa", counts([3] * 3, [0] * 3), r"at least one.*\[0, 0, 0\]"),
        ("gpt2", counts([3] * 3), "3 heads"),
        ("llama-gqa-biased", counts([3] * 3), "biases"),
    ],
)
def test_a_stock_form_that_cannot_be_says_why(name, counts, reason):
    with pytest.raises(ExportImpossible, match=reason):
        resolve_form(CONFIGS[name], counts, "stock")


def test_an_uneven_checkpoint_can_become_stock_again(tmp_path):
    model, tokenizer, family = make_loaded("llama-gqa")
    options = {"family": family, "form": "auto", "dtype": "float32"}
    first = {"attention": {0: [1], 1: [0, 2]}}
    kept = survivors(family, model, first)
    apply_removal(model, family, first)
    export(model, tokenizer, directory=tmp_path / "first", kept=kept, **options)
    model, tokenizer, family = load_model(PathModel(path=str(tmp_path / "first")), device="cpu", dtype="float32")
    assert family.counts(model, "attention") == [3, 2, 4]
    apply_removal(model, family, {"attention": {0: [0], 2: [1, 2]}})
    kept["attention"] = [[2, 3], [1, 3], [0, 3]]
    assert export(model, tokenizer, directory=tmp_path / "second", kept=kept, **options) == "stock"
    again = load_model(PathModel(path=str(tmp_path / "second")), device="cpu", dtype="float32")
    assert again.family.counts(again.model, "attention") == [2, 2, 2]
    assert torch.equal(again.model(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("variant", ["bloom", "falcon-grouped-alibi", "olmo2-gqa"])
def test_heads_whose_places_matter_find_them_again_after_a_reload(variant, tmp_path):
    model, tokenizer, family = make_loaded(variant)
    options = {"family": family, "dtype": "float32"}
    removed = {"attention": {0: [0], 1: [1]}}
    kept = survivors(family, model, removed)
    apply_removal(model, family, removed)
    export(model, tokenizer, form="auto", directory=tmp_path / "uneven", kept=kept, **options)
    again = load_model(PathModel(path=str(tmp_path / "uneven")), device="cpu", dtype="float32").model
    kept = survivors(family, again, {})  # all that somebody knows who did not make the first cut
    export(again, tokenizer, form="masked", directory=tmp_path / "masked", kept=kept, **options)
    masked = load_model(PathModel(path=str(tmp_path / "masked")), device="cpu", dtype="float32").model
    assert (masked(TOKENS).logits - model(TOKENS).logits).abs().max() <= 1e-5


@pytest.mark.parametrize(("used", "model_type"), [("stock", "mistral"), ("remote_code", "llama")])
def test_a_trained_model_keeps_its_bits(shared_models, exported, used, model_type):
    result = exported[f"trained-{used}"]
    assert result.used == used
    assert json.loads((result.checkpoint / "config.json").read_text())["model_type"] == model_type
    found = result.found.computed
    assert torch.equal(found["logits"], result.logits)
    for cache in ("dynamic", "no_cache", "static"):
        assert torch.equal(found[cache], result.tokens)
