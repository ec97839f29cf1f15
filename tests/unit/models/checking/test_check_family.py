import json
import shutil

import pytest
from typer.testing import CliRunner

from sentinel import cli
from sentinel.errors import ModelNotFound, ModelUnsupported
from sentinel.models.checking.check_family import LawResult, check_family
from sentinel.models.families.llama import LlamaFamily
from sentinel.spec import BuiltinModel, HubModel, PathModel


@pytest.fixture
def source(saved_models):
    return PathModel(path=str(saved_models / "llama"))


def test_a_good_family_passes_every_law_with_every_cut(saved_models, tmp_path):
    """Though transformers warns of the model as it is: its settings, as Llama 2's, have a length of their own."""
    folder = shutil.copytree(saved_models / "llama", tmp_path / "llama")
    settings = {"max_length": 4096, "do_sample": False, "temperature": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    results = check_family(PathModel(path=str(folder)))
    assert all(result.passed for result in results), results
    cuts = {f"{unit}-{how}" for unit in ("attention", "mlp") for how in ("even", "uneven", "whole")}
    assert {result.cut.partition(" ")[0] for result in results} == {"nothing"} | cuts
    assert {result.law[0] for result in results} == {"1", "2", "3"}
    assert len(results) == 1 + 4 * (1 + len(cuts))


def test_a_family_that_cuts_the_wrong_slices_is_not_masking(source, monkeypatch):
    keep = LlamaFamily.keep_groups
    monkeypatch.setattr(LlamaFamily, "keep_groups", lambda self, *place_and_keep: keep(self, *shifted(*place_and_keep)))
    failed = {result.law for result in check_family(source) if not result.passed}
    assert "2 surgery = masking" in failed
    assert "3 transformers alone" not in failed


def shifted(model, layer, unit, keep):
    """As many groups, but others."""
    count = LlamaFamily().counts(model, unit)[layer]
    return model, layer, unit, sorted((group + 1) % count for group in keep)


def test_a_model_without_a_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ModelUnsupported):
        check_family(PathModel(path=str(tmp_path)))
    with pytest.raises(ModelNotFound):
        check_family(PathModel(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(("passed", "code", "says"), [(True, 0, "yes"), (False, 1, "NO")])
def test_the_command_prints_a_table_and_fails_with_a_law(passed, code, says, monkeypatch):
    asked = []
    result = LawResult(law="1 open gates", cut="nothing", measured="0.0e+00", passed=passed)
    monkeypatch.setattr(
        "sentinel.models.checking.check_family.check_family", lambda source: asked.append(source) or [result]
    )
    for model in ("builtin/gpt2", "./folder", "someone/model"):
        done = CliRunner().invoke(cli.app, ["check-family", model, "--revision", "v1"])
        assert done.exit_code == code
        assert says in done.output
    assert asked == [BuiltinModel(id="gpt2"), PathModel(path="./folder"), HubModel(id="someone/model", revision="v1")]
