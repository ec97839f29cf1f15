"""`sentinel run` as a person calls it: once as a process of its own, and on a real trained model.

A process spends seconds on its imports, so what does not need a fresh one is called in this one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sentinel import cli
from sentinel.models.adaptive.gates import Gates
from sentinel.models.checking.fresh_process import reload_elsewhere
from sentinel.models.loaders.load import load_model
from sentinel.models.loaders.weights import load_weights
from sentinel.models.optimized.export import export
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import Result
from sentinel.spec import PathModel, parse_spec
from sentinel.utils.checkpoints.cycle_state import load_state

SHARED = Path(__file__).parents[2].parent / "shared"
STORIES_260K = SHARED / "models" / "stories260K"
TINY_STORIES = SHARED / "text" / "tinystories_train_2M.txt"
TEXT = 200_000  # characters of it; reading all of them takes longer than the rest


def sentinel(*arguments, cwd):
    command = [sys.executable, "-W", "error::UserWarning", "-m", "sentinel", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def document(**changes):
    return {
        "model": "builtin/gpt2",
        "data": {"source": "builtin", "sequence_length": 64},
        "prune": {
            "target": {"sparsity": 0.25},
            "cycles": 1,
            "calibration_sequences": 4,
            "strategy": "magnitude",
            "allocation": "uniform",
            "compensation": "least_squares",
            "search": None,
        },
        "heal": {"steps": 2, "batch_tokens": 128},
        "evaluate": {"tokens": 512, "prompts": ["One day"]},
        "device": "cpu",
    } | changes


@pytest.fixture
def spec_file(tmp_path):
    def write(**changes):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document(**changes)))
        return "spec.yaml"

    return write


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Call `sentinel` in this process, which has the slow imports behind it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sentinel", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, printed.out, printed.err)

    return call


def test_a_run_is_written_told_never_overwritten_and_can_go_on(tmp_path, spec_file, here):
    done = sentinel("run", spec_file(), "--output", "out", "--json", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = Result.model_validate_json(done.stdout.splitlines()[-1])
    assert result == Result.model_validate_json((tmp_path / "out" / "result.json").read_bytes())
    assert result.export_form == "remote_code"
    assert "leaked" not in done.stderr
    assert "healing · cycle 1" in done.stderr
    again = here("run", "spec.yaml", "--output", "out")
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    before = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    resumed = here("run", "spec.yaml", "--output", "out", "--resume", "--seed", "3")
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed after cycle 1 of 1" in resumed.stderr
    assert "attention groups" in resumed.stdout
    after = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mistakes_are_explained_before_anything_is_loaded(tmp_path, here):
    done = sentinel("run", "--model", "builtin/gpt2", "--prune.target.sparsity", "7", "--colour", "red", cwd=tmp_path)
    assert done.returncode == 2
    assert "/prune/target/sparsity" in done.stderr
    assert "/colour" in done.stderr
    assert "Traceback" not in done.stderr
    assert here("run", "--resume", "--model", "x", "--prune.target.sparsity", "0").returncode == 2


def test_a_wrong_path_fails_with_what_to_do(here):
    done = here("run", "--model", "./absent", "--prune.target.sparsity", "0.5")
    assert done.returncode == 2
    assert "There is no model folder" in done.stderr
    assert "config.json" in done.stderr


@pytest.mark.skipif(not STORIES_260K.is_dir(), reason="needs ../shared/models/stories260K")
@pytest.mark.parametrize(("allocation", "form"), [("uniform", "stock"), ("global", "remote_code")])
def test_a_real_model_is_exact_under_the_laws(tmp_path, spec_file, here, allocation, form):
    (tmp_path / "stories.txt").write_text(TINY_STORIES.read_text()[:TEXT])
    spec = document(
        model=str(STORIES_260K),
        data={"source": "path", "train": str(tmp_path / "stories.txt"), "held_out": 0.1, "sequence_length": 128},
        prune={
            "units": ["attention"],
            "target": {"sparsity": 0.25},
            "cycles": 2,
            "allocation": allocation,
            "compensation": "least_squares",
            "search": {"evaluations": 6, "windows": 4},
            "calibration_sequences": 8,
        },
        heal={"steps": 4, "batch_tokens": 1024},
    )
    done = here("run", spec_file(**spec), "--output", "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["export_form"] == form
    assert (result["dense"]["groups"]["attention"], result["pruned"]["groups"]["attention"]) == (20, 15)
    tokens = torch.randint(3, 512, (3, 100), generator=torch.Generator().manual_seed(0))
    dense, tokenizer, family = load_model(PathModel(path=str(STORIES_260K)), device="cpu", dtype="float32")
    with torch.no_grad():
        untouched = dense(input_ids=tokens).logits
        with Gates(family.sites(dense)):
            assert torch.equal(dense(input_ids=tokens).logits, untouched), "law 1"
        state_folder = tmp_path / "out" / "state" / "cycle-0002"
        state = load_state(state_folder, parse_spec(spec))
        module = PruningModule(dense, family, kept=state.kept)
        load_weights(state_folder / "checkpoint", module.model)
        logits = module.model(input_ids=tokens).logits
    masked = {"form": "masked", "dtype": "float32", "kept": module.kept}
    export(module.model, tokenizer, family=family, directory=tmp_path / "masked" / "checkpoint", **masked)
    reloaded = reload_elsewhere(tmp_path, tokens, new_tokens=1, caches=["dynamic"])
    assert (reloaded["masked"].computed["logits"] - logits).abs().max() <= 1e-5, "law 2"
    assert torch.equal(reloaded["out"].computed["logits"], logits), "law 3"
