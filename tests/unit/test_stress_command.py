"""A real, small run with `evaluate.stress`, and the command on the checkpoint that it left."""

import json
import shutil

import pytest
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from sentinel import cli, experiment
from sentinel.data_spec import BuiltinData
from sentinel.errors import ModelNotFound, SpecInvalid
from sentinel.inputs import load_inputs
from sentinel.manifest import Manifest
from sentinel.paths import BUILTIN_MODELS
from sentinel.result import Result
from sentinel.spec import BuiltinModel, Evaluate, PathModel, parse_spec
from sentinel.stress.of_checkpoint import stress_checkpoint
from sentinel.stress_command import spec_of
from sentinel.stress_result import StressResult

TEXT = "\n\n".join(f"Once upon a time {a} met {b}. {a} and {b} sang." for a in "ABCDEFGH" for b in "IJKLMNOP")
PLAYS = "\n\n".join(f"{a}: Speak, good {b}, and hear me, {a}." for a in "RSTUVWXY" for b in "ABCDEFGH")
STRESS = {
    "domains": {"plays": {"source": "path", "train": "", "sequence_length": 32}},
    "tokens": 256,
    "probes": {"sequences": 2},
    "alternation": {"rounds": 1, "steps": 1},
    "damage": {"steps": 1, "points": 1},
    "batch_tokens": 64,
}


class Silent:
    def emit(self, event):
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "stories.txt").write_text(TEXT)
    (folder / "plays.txt").write_text(PLAYS)
    return folder


@pytest.fixture(scope="module")
def document(files):
    stress = STRESS | {"domains": {"plays": STRESS["domains"]["plays"] | {"train": str(files / "plays.txt")}}}
    return {
        "model": "builtin/llama",
        "data": {"source": "path", "train": str(files / "stories.txt"), "sequence_length": 32},
        "prune": {
            "strategy": "magnitude",
            "target": {"sparsity": 0.25},
            "allocation": "uniform",
            "compensation": "least_squares",
            "search": None,
            "calibration_sequences": 4,
        },
        "heal": {"steps": 2, "batch_tokens": 64},
        "evaluate": {"tokens": 512, "prompts": [], "stress": stress},
        "device": "cpu",
        "seed": 3,
    }


@pytest.fixture(scope="module")
def run(document, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return output, experiment.run(parse_spec(document), output=output, reporter=Silent())


@pytest.fixture
def flags(files):
    """Where the texts lie, which a manifest does not tell."""
    places = {"--data.train": files / "stories.txt", "--evaluate.stress.domains.plays.train": files / "plays.txt"}
    return [str(word) for flag in places.items() for word in flag]


def test_a_run_says_what_it_measured(run):
    output, result = run
    assert [record.domain for record in result.stress.domains] == ["data", "plays"]
    assert Result.model_validate_json((output / "result.json").read_bytes()).stress == result.stress
    card = (output / "checkpoint" / "README.md").read_text()
    assert "## Under stress\n" in card
    assert "`plays`, last 10% of plays.txt" in card
    increase = result.stress.domains[1]
    assert f"| {increase.dense_loss:.4f} | {increase.pruned_loss:.4f} | {increase.increase:+.4f} ± " in card
    assert "| won back | " in card


def test_the_manifest_tells_of_the_texts(run, files):
    manifest = Manifest.model_validate_json((run[0] / "checkpoint" / "sentinel.json").read_bytes())
    assert manifest.sources.text.keys() == {"train", "plays/train"}
    assert {"plays/training", "plays/evaluation"} <= manifest.tokens.keys()
    assert str(files) not in manifest.model_dump_json()


def test_it_changes_no_weight(document, run, tmp_path):
    unstressed = document | {"evaluate": document["evaluate"] | {"stress": None}}
    result = experiment.run(parse_spec(unstressed), output=tmp_path, reporter=Silent())
    assert result.stress is None
    assert "Under stress" not in (tmp_path / "checkpoint" / "README.md").read_text()
    alone, both = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (tmp_path, run[0]))
    assert alone.keys() == both.keys()
    assert all(alone[name].equal(both[name]) for name in both)


def test_the_command_measures_the_same_of_the_checkpoint(run, flags, tmp_path):
    file, checkpoint = tmp_path / "new" / "stress.json", run[0] / "checkpoint"
    done = CliRunner().invoke(cli.app, ["stress", str(checkpoint), "--json", "--output", str(file), *flags])
    assert done.exit_code == 0, done.output
    found = StressResult.model_validate_json(done.stdout.splitlines()[-1])
    assert found == run[1].stress
    assert StressResult.model_validate_json(file.read_bytes()) == found


def test_a_place_for_the_result_that_is_none_is_told_before_anything_is_measured(run, flags, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr("sentinel.stress.of_checkpoint.stress_checkpoint", never)
    (tmp_path / "file").touch()
    command = ["stress", str(run[0] / "checkpoint"), *flags, "--output"]
    assert CliRunner().invoke(cli.app, [*command, str(tmp_path)]).exit_code == 2
    failed = CliRunner().invoke(cli.app, [*command, str(tmp_path / "file" / "stress.json")])
    assert isinstance(failed.exception, FileExistsError)


def test_the_command_prints_tables(run, flags):
    less = ["--evaluate.stress.alternation", "null", "--evaluate.stress.damage", "null"]
    done = CliRunner().invoke(cli.app, ["stress", str(run[0] / "checkpoint"), *flags, *less])
    assert done.exit_code == 0, done.output
    assert "Loss by domain, nats per token" in done.stdout
    assert "in turn" not in done.stdout


def test_flags_win_over_the_manifest(run, flags):
    spec = spec_of(run[0] / "checkpoint", dense="./elsewhere", arguments=[*flags, "--seed", "5"])
    assert (spec.model.path, spec.seed, spec.data.sequence_length) == ("./elsewhere", 5, 32)
    assert spec.heal.steps == 2
    assert spec.evaluate.tokens == 512
    other = spec_of(run[0] / "checkpoint", dense=None, arguments=["--data.source", "builtin", *flags[2:]])
    assert (other.data.source, other.model.id) == ("builtin", "llama")


@pytest.mark.parametrize("section", ["grow", "controller"])
def test_what_a_run_decided_by_on_the_way_is_kept_out_of_the_text_again(document, run, flags, tmp_path, section):
    manifest = json.loads((run[0] / "checkpoint" / "sentinel.json").read_bytes())
    made_by = parse_spec(document | {"prune": document["prune"] | {"cycles": 2}, section: {}})
    manifest["spec"] = made_by.model_dump(mode="json")
    (tmp_path / "sentinel.json").write_text(json.dumps(manifest))
    made, stressed = (
        load_inputs(
            spec.model_copy(update={"data": BuiltinData(sequence_length=32), "evaluate": Evaluate(tokens=512)}),
            allowed_roots=None,
        )
        for spec in (made_by, spec_of(tmp_path, dense=None, arguments=flags))
    )
    assert stressed.calibration.equal(made.calibration)
    assert stressed.training.equal(made.training)


def test_a_commit_of_the_hub_is_read_again(run, tmp_path):
    manifest = json.loads((run[0] / "checkpoint" / "sentinel.json").read_bytes())
    manifest["spec"]["model"] = {"source": "hub", "id": "someone/model", "revision": "main", "dtype": "bfloat16"}
    manifest["spec"]["evaluate"]["stress"] = {"domains": {"wiki": {"source": "hub", "id": "someone/wiki"}}}
    manifest["sources"] |= {"commit": "c0ffee", "domain_commits": {"wiki": "bea7ed"}}
    (tmp_path / "sentinel.json").write_text(json.dumps(manifest))
    assert (
        spec_of(tmp_path, dense=None, arguments=["--data.source", "builtin"]).evaluate.domains["wiki"].revision
        == "bea7ed"
    )

    manifest["spec"]["evaluate"]["stress"] = None
    manifest["sources"] |= {"domain_commits": {}}
    (tmp_path / "sentinel.json").write_text(json.dumps(manifest))
    spec = spec_of(tmp_path, dense=None, arguments=["--data.source", "builtin"])
    assert (spec.model.revision, spec.model.dtype) == ("c0ffee", "bfloat16")
    assert spec.evaluate.stress.domains["programs"].source == "builtin"
    assert spec_of(tmp_path, dense="builtin/gpt2", arguments=["--data.source", "builtin"]).model.dtype == "bfloat16"


def test_what_the_checkpoint_does_not_tell_is_asked_for(run, flags, tmp_path):
    with pytest.raises(SpecInvalid, match=r"text was of source path.*--data\.train"):
        spec_of(run[0] / "checkpoint", dense=None, arguments=[])
    with pytest.raises(SpecInvalid, match=r"dense model is\. Name it with --dense"):
        spec_of(tmp_path, dense=None, arguments=[])
    assert spec_of(tmp_path, dense="builtin/llama", arguments=[]).heal is None
    with pytest.raises(ModelNotFound, match="There is no folder"):
        spec_of(tmp_path / "typo", dense=None, arguments=[])
    for nothing in ("null", "foo"):
        with pytest.raises(SpecInvalid, match="--data takes no value"):
            spec_of(tmp_path, dense="builtin/llama", arguments=["--data", nothing])
    (tmp_path / "sentinel.json").write_text("{}")
    with pytest.raises(SpecInvalid, match="damaged, or of another version"):
        spec_of(tmp_path, dense="builtin/llama", arguments=[])


def test_a_flag_that_names_no_model_finds_none(run, flags, tmp_path):
    """A dtype says no place, and another source's fields are not the first one's."""
    manifest = json.loads((run[0] / "checkpoint" / "sentinel.json").read_bytes())
    manifest["spec"]["model"] = {"source": "path", "path": "model", "dtype": "bfloat16"}
    (tmp_path / "sentinel.json").write_text(json.dumps(manifest))
    text = ["--data.source", "builtin", *flags[2:]]
    with pytest.raises(SpecInvalid, match=r"dense model was of source path.*--dense"):
        spec_of(tmp_path, dense=None, arguments=[*text, "--model.dtype", "float32"])
    named = spec_of(tmp_path, dense=None, arguments=[*text, "--model.path", "/models/model"])
    assert named.model == PathModel(path="/models/model", dtype="bfloat16")
    other = spec_of(tmp_path, dense=None, arguments=[*text, "--model.source", "builtin", "--model.id", "llama"])
    assert other.model == BuiltinModel(id="llama", dtype="bfloat16")
    assert spec_of(tmp_path, dense=None, arguments=[*text, "--model", "builtin/llama"]).model.id == "llama"


def test_a_domain_of_local_files_is_asked_for(run, flags):
    with pytest.raises(SpecInvalid, match=r"domain plays lies.*--evaluate\.stress\.domains\.plays\.train"):
        spec_of(run[0] / "checkpoint", dense=None, arguments=flags[:2])
    others = ["--evaluate.stress.domains", "{programs: {source: builtin, id: programs}}"]
    spec = spec_of(run[0] / "checkpoint", dense=None, arguments=[*flags[:2], *others])
    assert list(spec.evaluate.stress.domains) == ["programs"]


def test_what_cannot_be_compared_is_refused(document, tmp_path):
    evaluate = {"tokens": 64, "stress": None}
    with pytest.raises(SpecInvalid, match="nothing to measure"):
        stress_checkpoint(parse_spec(document | {"evaluate": evaluate}), tmp_path, tell=str)
    config = LlamaConfig(
        vocab_size=1030, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    for file in (BUILTIN_MODELS / "llama").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    evaluate = {"tokens": 64, "stress": {"tokens": 64, "probes": None, "alternation": None, "damage": None}}
    with pytest.raises(SpecInvalid, match="knows 1024 tokens, the checkpoint 1030"):
        stress_checkpoint(parse_spec(document | {"evaluate": evaluate}), tmp_path, tell=str)
