import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sentinel.errors import ExportImpossible
from sentinel.models.adaptive.gates import Gates
from sentinel.models.loaders.load import load_model
from sentinel.models.optimized.export import export, resolve_form
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import PathModel
from tests.unit.models.conftest import CONFIGS, EVEN, UNEVEN, make_loaded, survivors

TOKENS = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Case:
    variant: str
    removed: dict[int, list[int]]
    form: str
    dtype: str
    used: str

    def __str__(self) -> str:
        what = {0: "nothing", 2: "uneven", 3: "even"}[len(self.removed)]
        return f"{self.variant}-{self.form}-{what}-{self.dtype}"


CASES = [
    *(Case(name, UNEVEN, "auto", "float32", "remote_code") for name in CONFIGS),
    *(Case(name, UNEVEN, "masked", "float32", "masked") for name in CONFIGS),
    *(Case(name, EVEN, "auto", "float32", "stock") for name in ("llama", "llama-heads", "mistral", "qwen2")),
    *(Case(name, EVEN, "auto", "float32", "remote_code") for name in ("gpt2", "llama-biased")),
    *(Case(name, UNEVEN, "auto", "bfloat16", "remote_code") for name in ("gpt2", "llama", "qwen2")),
    Case("llama", EVEN, "stock", "bfloat16", "stock"),
    Case("gpt2", UNEVEN, "masked", "bfloat16", "masked"),
    Case("gpt2", {}, "auto", "float32", "stock"),
]


@dataclass(frozen=True)
class Reloaded:
    checkpoint: Path
    used: str
    expected: dict[str, torch.Tensor]
    found: dict[str, torch.Tensor]
    log: list[str]


def _expected(model) -> dict[str, torch.Tensor]:
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **options)
    return {"logits": model(TOKENS).logits.detach(), "tokens": tokens}


def _write(case: Case, folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    model, tokenizer, family = make_loaded(case.variant, dtype=getattr(torch, case.dtype))
    kept = survivors(family.counts(model), case.removed)
    with Gates(family.sites(model)) as gates:
        for layer, groups in case.removed.items():
            for group in groups:
                gates.close(layer, group)
        masked = _expected(model)
    apply_removal(model, family, case.removed)
    options = {"family": family, "form": case.form, "dtype": case.dtype, "kept": kept}
    used = export(model, tokenizer, directory=folder / "checkpoint", **options)
    return used, masked if used == "masked" else _expected(model)


def _reload(root: Path, tokens: torch.Tensor) -> None:
    """Load every checkpoint under `root` in one fresh process that knows nothing of Sentinel."""
    save_file({"tokens": tokens}, root / "tokens.safetensors")
    script = shutil.copy(Path(__file__).with_name("reload_checkpoints.py"), root)
    environment = {**os.environ, "HF_HOME": str(root / "hub"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, script, root], check=True, cwd=root, env=environment)


@pytest.fixture(scope="session")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reloaded]:
    """Every case, exported here and loaded elsewhere."""
    root = tmp_path_factory.mktemp("exported")
    written = {str(case): _write(case, root / str(case)) for case in CASES}
    _reload(root, TOKENS)
    return {
        name: Reloaded(
            checkpoint=root / name / "checkpoint",
            used=used,
            expected=expected,
            found=load_file(root / name / "reloaded.safetensors"),
            log=json.loads((root / name / "log.json").read_text()),
        )
        for name, (used, expected) in written.items()
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fresh_process_computes_the_same_bits(case, reloaded):
    result = reloaded[str(case)]
    assert result.used == case.used
    assert torch.equal(result.found["logits"], result.expected["logits"])
    for cache in ("dynamic", "no_cache", "static") if case.dtype == "float32" else ("dynamic",):
        assert torch.equal(result.found[cache], result.expected["tokens"]), cache
    assert result.log == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_own_loader_computes_the_same_bits_without_running_code(case, reloaded):
    result = reloaded[str(case)]
    for code in result.checkpoint.glob("*.py"):
        code.write_text("raise RuntimeError('the code of a checkpoint was run')\n")
    source = PathModel(path=str(result.checkpoint))
    model, tokenizer, family = load_model(source, device="cpu", dtype=case.dtype)
    assert torch.equal(model(TOKENS).logits, result.expected["logits"])
    assert (model.training, tokenizer.padding_side) == (False, "left")
    dense = family.dense_count(CONFIGS[case.variant])
    if case.used != "masked":
        assert family.counts(model) == [len(kept) for kept in survivors([dense] * 3, case.removed)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_lies_in_the_folder(case, reloaded):
    folder = reloaded[str(case)].checkpoint
    suffixes = {file.suffix for file in folder.iterdir()}
    assert suffixes == {".json", ".safetensors"} | ({".py"} if case.used == "remote_code" else set())
    assert (folder / "generation_config.json").exists()
    for file in folder.glob("*.json"):
        assert str(folder.parents[1]) not in file.read_text(), file.name
        assert "_name_or_path" not in file.read_text()
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert {str(tensors.get_tensor(k).dtype) for k in tensors.keys()} == {f"torch.{case.dtype}"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == case.dtype


def test_another_type_is_written_without_changing_the_model(tmp_path):
    model, tokenizer, family = make_loaded("llama")
    before = model(TOKENS).logits
    options = {"family": family, "form": "auto", "dtype": "bfloat16", "kept": [range(4)] * 3}
    assert export(model, tokenizer, directory=tmp_path / "c", **options) == "stock"
    assert torch.equal(model(TOKENS).logits, before)
    again = load_model(PathModel(path=str(tmp_path / "c")), device="cpu", dtype="bfloat16").model
    assert torch.equal(again(TOKENS).logits, model.to(torch.bfloat16)(TOKENS).logits)
    saved = load_file(tmp_path / "c" / "model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.bfloat16}


def test_tied_weights_are_written_once_in_any_type(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    export(
        model, tokenizer, family=family, form="auto", dtype="bfloat16", directory=tmp_path / "c", kept=[range(4)] * 3
    )
    assert "lm_head.weight" not in load_file(tmp_path / "c" / "model.safetensors")


def test_masked_slices_stay_zero_after_training(variant, tmp_path):
    model, tokenizer, family = make_loaded(variant)
    kept = survivors(family.counts(model), UNEVEN)
    apply_removal(model, family, UNEVEN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(TOKENS).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    export(model, tokenizer, family=family, form="masked", dtype="float32", directory=tmp_path / "c", kept=kept)
    masked, _, _ = load_model(PathModel(path=str(tmp_path / "c")), device="cpu", dtype="float32")
    assert (masked(TOKENS).logits - model(TOKENS).logits).abs().max() <= 1e-5
    dense_count = family.dense_count(masked.config)
    assert family.counts(masked) == [dense_count] * 3
    for layer, groups in UNEVEN.items():
        for part in family.parts(masked, layer):
            removed = part.features(groups, num_groups=dense_count)
            for _, value, dim in part.tensors():
                assert value.index_select(dim, removed).count_nonzero() == 0


def test_a_checkpoint_replaces_an_older_one_as_a_whole(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "modeling_sentinel_gpt2.py").write_text("old")
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=directory, kept=[range(4)] * 3)
    assert not list(directory.glob("*.py"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_an_impossible_form_is_refused_before_anything_is_written(tmp_path):
    model, tokenizer, family = make_loaded("gpt2")
    apply_removal(model, family, EVEN)
    options = {"family": family, "dtype": "float32", "directory": tmp_path / "c"}
    with pytest.raises(ExportImpossible):
        export(model, tokenizer, form="stock", kept=survivors([4] * 3, EVEN), **options)
    with pytest.raises(ValueError, match="kept"):
        export(model, tokenizer, form="auto", kept=[[0]] * 3, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "counts", "form", "used"),
    [
        ("llama", [3, 3, 3], "auto", "stock"),
        ("llama", [3, 2, 3], "auto", "remote_code"),
        ("llama", [3, 3, 3], "remote_code", "remote_code"),
        ("gpt2", [4, 4, 4], "auto", "stock"),
        ("gpt2", [3, 3, 3], "auto", "remote_code"),
        ("gpt2", [3, 3, 3], "masked", "masked"),
        ("llama-biased", [2, 2, 2], "auto", "stock"),
        ("llama-biased", [3, 3, 3], "auto", "remote_code"),
    ],
)
def test_the_form_follows_from_the_counts(name, counts, form, used):
    assert resolve_form(CONFIGS[name], counts, form) == used


@pytest.mark.parametrize(
    ("name", "counts", "reason"),
    [
        ("llama", [3, 2, 3], r"same count.*\[3, 2, 3\]"),
        ("gpt2", [3] * 3, "3 heads"),
        ("llama-biased", [3] * 3, "biases"),
    ],
)
def test_a_stock_form_that_cannot_be_says_why(name, counts, reason):
    with pytest.raises(ExportImpossible, match=reason):
        resolve_form(CONFIGS[name], counts, "stock")


def test_an_uneven_checkpoint_can_be_pruned_and_exported_again(tmp_path):
    model, tokenizer, family = make_loaded("llama")
    apply_removal(model, family, {0: [1], 1: [0, 2]})
    options = {"family": family, "form": "auto", "dtype": "float32"}
    export(model, tokenizer, directory=tmp_path / "first", kept=[[0, 2, 3], [1, 3], range(4)], **options)
    model, tokenizer, family = load_model(PathModel(path=str(tmp_path / "first")), device="cpu", dtype="float32")
    assert family.counts(model) == [3, 2, 4]
    apply_removal(model, family, {0: [0], 2: [1, 2]})
    assert export(model, tokenizer, directory=tmp_path / "second", kept=[[1, 2], [0, 1], [0, 3]], **options) == "stock"
    again = load_model(PathModel(path=str(tmp_path / "second")), device="cpu", dtype="float32")
    assert again.family.counts(again.model) == [2, 2, 2]
    assert torch.equal(again.model(TOKENS).logits, model(TOKENS).logits)


def test_a_trained_model_keeps_its_bits(shared_models, tmp_path):
    source = PathModel(path=str(shared_models / "stories260K"))
    expected = {}
    for used, counts in {"stock": [3] * 5, "remote_code": [3, 2, 4, 1, 2]}.items():
        model, tokenizer, family = load_model(source, device="cpu", dtype="float32", allowed_roots=[shared_models])
        apply_removal(model, family, {layer: range(count, 4) for layer, count in enumerate(counts)})
        options = {"family": family, "form": "auto", "dtype": "float32", "kept": [range(count) for count in counts]}
        assert export(model, tokenizer, directory=tmp_path / used / "checkpoint", **options) == used
        tokens = tokenizer(["Once upon a time there was a girl"], return_tensors="pt")["input_ids"]
        expected[used] = model(tokens).logits
    assert json.loads((tmp_path / "stock/checkpoint/config.json").read_text())["model_type"] == "mistral"
    _reload(tmp_path, tokens)
    for used, logits in expected.items():
        found = load_file(tmp_path / used / "reloaded.safetensors")
        assert torch.equal(found["logits"], logits)
        assert torch.equal(found["dynamic"], found["no_cache"])
        assert torch.equal(found["dynamic"], found["static"])
