"""The card and the manifest of a real, small run: they say what is so, and the run can be repeated from them."""

import hashlib
import html
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from markdown_it import MarkdownIt

from sentinel import experiment
from sentinel.errors import ExportImpossible
from sentinel.manifest import Manifest, Run, numbers, ranges, read_sources
from sentinel.model_card import write_card
from sentinel.models.loaders.load import load_model
from sentinel.result import CostRecord, Result
from sentinel.spec import PathModel, parse_spec
from tests.unit.pruning.visualization.records import cycle, decision

BUILTIN = Path(experiment.__file__).parent / "models" / "builtin"
TEXT = "\n\n".join(
    f"Once upon a time {name} met {other}. They were happy." for name in "ABCDEFGH" for other in "UVWXYZ"
)


class Silent:
    def emit(self, event):
        pass


def document(folder, **sections):
    return {
        "name": "A *bold* | name",
        "model": {"source": "path", "path": str(folder / "my-llama")},
        "data": {"source": "path", "train": str(folder / "stories.txt"), "sequence_length": 32},
        "prune": {
            "units": ["attention", "mlp"],
            "strategy": "magnitude",
            "target": {"sparsity": 0.4},
            "allocation": "global",
            "cycles": 2,
            "calibration_sequences": 8,
            "search": {"evaluations": 4, "windows": 4},
        },
        "heal": {"steps": 2, "batch_tokens": 64},
        "evaluate": {"tokens": 64, "prompts": ["Once `upon`"]},
        "export": {"gguf": True},
        "device": "cpu",
        "seed": 3,
        **sections,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(BUILTIN / "llama", folder / "my-llama")
    (folder / "stories.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    spec = parse_spec(document(inputs))
    return output, spec, experiment.run(spec, output=output, reporter=Silent())


@pytest.fixture(scope="module")
def card(finished):
    return (finished[0] / "checkpoint" / "README.md").read_text()


@pytest.fixture(scope="module")
def manifest(finished):
    return Manifest.model_validate_json((finished[0] / "checkpoint" / "sentinel.json").read_bytes())


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def rows(card, heading):
    section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_front_matter_is_what_the_hub_reads(card):
    fields = front_matter(card)
    assert fields == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sentinel", "pruned", "structured-pruning"],
    }


def test_the_tables_hold_the_results_numbers(finished, card):
    _, _, result = finished
    dense, pruned = result.dense, result.pruned
    table = {name: cells for name, *cells in rows(card, "Before and after")}
    assert table["loss, nats per token"][:2] == [f"{dense.loss:.4f}", f"{pruned.loss:.4f}"]
    assert table["parameters"][:2] == [f"{dense.parameters:,}", f"{pruned.parameters:,}"]
    assert table["parameters"][2] == f"{100 * (pruned.parameters / dense.parameters - 1):.1f}%"
    assert table["KL(dense ‖ pruned), nats per token"][1] == f"{pruned.kl_to_dense:.4f}"
    assert table["same first choice as the dense model"][1] == f"{100 * pruned.agreement:.1f}%"
    assert f"\n- {result.memory.sentence()[:-1]}\n" in card
    cycles = rows(card, "What was done")[2:]
    assert [cells[2] for cells in cycles] == [f"{record.loss:.4f}" for record in result.cycles]
    refits = {(item.layer, item.unit): item for record in result.cycles for item in record.compensation}
    shown = {(int(layer), unit): cells for layer, unit, *cells in rows(card, "Compensation")[2:]}
    assert shown.keys() == refits.keys()
    assert all(float(cells[2]) == pytest.approx(refits[at].error_after, rel=1e-3) for at, cells in shown.items())


def test_what_is_left_of_each_layer(finished, card, manifest):
    _, _, result = finished
    for layer, (number, attention, mlp) in enumerate(rows(card, "What is left of each layer")[2:]):
        left = sorted({0, 1, 2, 3} - set(result.removed["attention"].get(layer, [])))
        neurons = 288 - len(result.removed["mlp"].get(layer, []))
        assert (number, mlp) == (str(layer), f"{neurons} of 288")
        assert attention == ("4 of 4" if len(left) == 4 else f"{len(left)} of 4: {ranges(left)}")
        assert manifest.kept["attention"][layer] == ranges(left)
    assert manifest.dense_counts == {"attention": [4] * 4, "mlp": [288] * 4}


def test_users_text_is_no_markdown(card):
    assert "\n# A \\*bold\\* \\| name\n" in card
    assert "Once \\`upon\\` …" in card


@pytest.mark.parametrize(
    "prompt",
    ["~~~python def f():", "~~a~~ b", "- item", "+ item", "1. Once", "12) upon", "a &lt;b&gt; &amp; c", "-5.0", "<b>"],
)
def test_a_prompt_is_shown_as_it_is(finished, inputs, tmp_path, prompt):
    card = rewritten(finished, tmp_path, document(inputs, evaluate={"prompts": [prompt]}))
    shown = MarkdownIt().enable("strikethrough").render(card.partition("## Samples\n")[2])
    assert shown.startswith(f"<p>{html.escape(prompt)} …</p>\n<p>dense:</p>\n<pre><code>")
    assert "<h2>Plots</h2>" in shown


def test_pictures_lie_beside_the_card(finished, card):
    folder = finished[0] / "checkpoint"
    pictures = re.findall(r"!\[.*\]\((.*)\)", card)
    names = ("attention_groups", "attention_history", "healing", "losses", "mlp_groups", "mlp_history", "size_path")
    assert pictures == [f"plots/{name}.png" for name in names]
    assert all((folder / picture).read_bytes() == (finished[0] / picture).read_bytes() for picture in pictures)


def test_the_cards_code_loads_the_checkpoint(finished, card):
    output, _, result = finished
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    names = {}
    exec(code.replace("path/to/this/folder", str(output / "checkpoint")), names)
    assert sum(parameter.numel() for parameter in names["model"].parameters()) == result.pruned.parameters
    assert names["tokenizer"].eos_token == "<|endoftext|>"
    assert "llama-cli -m model.gguf" in card
    assert (output / "checkpoint" / "model.gguf").read_bytes()[:4] == b"GGUF"


def test_our_own_loader_takes_the_folder(finished):
    output, _, result = finished
    loaded = load_model(PathModel(path=str(output / "checkpoint")), device="cpu", dtype="float32")
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == result.pruned.parameters


def test_the_manifest_digests_what_went_in_and_came_out(finished, inputs, manifest):
    folder = finished[0] / "checkpoint"
    files = {file.relative_to(folder).as_posix(): sha256(file) for file in folder.rglob("*") if file.is_file()}
    assert manifest.files == {name: digest for name, digest in files.items() if name != "sentinel.json"}
    assert manifest.sources.model == {file.name: sha256(file) for file in (inputs / "my-llama").iterdir()}
    assert manifest.sources.text == {"train": sha256(inputs / "stories.txt")}
    assert manifest.tokens["calibration"].shape == [8, 32]
    assert manifest.machine.device.startswith("cpu")
    assert manifest.versions.keys() == {"sentinel", "torch", "transformers", "numpy", "python"}


def test_the_manifests_result_is_that_of_the_run(finished, manifest):
    _, _, result = finished
    said = {**manifest.result, "checkpoint": "", "removed": {}}
    said["cycles"] = [{**cycle, "removed": {}} for cycle in said["cycles"]]
    bare = [record.model_copy(update={"removed": {}}) for record in result.cycles]
    assert Result.model_validate(said) == result.model_copy(update={"checkpoint": "", "removed": {}, "cycles": bare})


def test_nothing_says_where_the_run_was(finished, inputs):
    output, _, _ = finished
    for file in (output / "checkpoint").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(inputs).encode() not in content, file.name
            assert str(output).encode() not in content, file.name


def test_the_manifests_spec_repeats_the_run(inputs, manifest, tmp_path, monkeypatch):
    spec = manifest.spec
    assert (spec["model"]["path"], spec["data"]["train"]) == ("my-llama", "stories.txt")
    monkeypatch.chdir(inputs / "my-llama")
    spec["model"]["path"], spec["data"]["train"] = ".", "../stories.txt"
    experiment.run(parse_spec(spec), output=tmp_path, reporter=Silent())
    again = Manifest.model_validate_json((tmp_path / "checkpoint" / "sentinel.json").read_bytes())
    assert again.spec["model"]["path"] == "my-llama"
    assert again.tokens == manifest.tokens
    assert again.kept == manifest.kept
    for name in ("model.safetensors", "model.gguf", "config.json"):
        assert again.files[name] == manifest.files[name]


def rewritten(finished, tmp_path, document, **changes):
    """The card of another spec with the same result, in a folder that has no GGUF file."""
    output, _, result = finished
    run = Run(
        spec=parse_spec(document),
        result=result.model_copy(update=changes),
        kept={"attention": [[0, 1, 3]], "mlp": [list(range(8))]},
        dense_counts={"attention": [4], "mlp": [8]},
    )
    write_card(tmp_path, run, plots=output / "plots")
    return (tmp_path / "README.md").read_text()


def test_the_model_in_the_current_folder_has_its_name(finished, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs / "my-llama")
    card = rewritten(finished, tmp_path, document(inputs, name=None, model={"source": "path", "path": "."}))
    assert "\n# my-llama, pruned\n" in card


def test_sizes_are_told_in_full(finished, inputs, tmp_path):
    of_size = document(inputs)
    of_size["prune"] |= {"target": {"parameters": 60_000_000}}
    cost = CostRecord(kind="parameters", goal=61_234_567.0, predicted=60_000_000.0, measured=999.5)
    cycles = [record.model_copy(update={"cost": cost}) for record in finished[2].cycles]
    card = rewritten(finished, tmp_path, of_size, cycles=cycles)
    assert "- Target: parameters 60,000,000\n" in card
    assert "| parameters | 61,234,567 | 60,000,000 | 999.5 |" in card


def test_a_hub_models_card_links_it(finished, inputs, tmp_path):
    hub = {
        "model": {"source": "hub", "id": "someone/model"},
        "data": {"source": "hub", "id": "someone/text"},
        "name": None,
    }
    card = rewritten(finished, tmp_path, document(inputs, **hub))
    assert front_matter(card)["base_model"] == "someone/model"
    assert front_matter(card)["datasets"] == ["someone/text"]
    assert "\n# someone/model, pruned\n" in card


def test_a_blank_name_is_none(finished, inputs, tmp_path):
    assert "\n# my-llama, pruned\n" in rewritten(finished, tmp_path, document(inputs, name=" "))


def test_the_card_leaves_out_what_was_not_done(finished, inputs, tmp_path):
    bare = document(inputs, heal=None, evaluate={"prompts": []}, name=None, model="builtin/llama")
    bare["prune"] |= {"strategy": "combined", "mix": {"obs": 2, "taylor": 1}, "search": {"evaluations": 5}}
    cycles = [record.model_copy(update={"compensation": []}) for record in finished[2].cycles]
    dense, pruned = (m.model_copy(update={"samples": []}) for m in (finished[2].dense, finished[2].pruned))
    changes = {"cycles": cycles, "export_form": "masked", "dense": dense, "pruned": pruned}
    card = rewritten(finished, tmp_path, bare, **changes)
    assert "## Samples" not in card
    assert "## Compensation" not in card
    assert "llama-cli" not in card
    assert "neither smaller nor faster" in card
    assert "trust_remote_code" not in card
    for line in ("Strategy: combined (obs 2, taylor 1)", "Healing: none", "Search: 5 evaluations per cycle"):
        assert f"- {line}" in card
    assert "| 0 | 3 of 4: 0-1, 3 | 8 of 8 |" in card


def test_model_and_tokenizer_of_layers_that_differ_are_loaded_with_their_code(finished, inputs, tmp_path):
    """The tokenizer without it, too, but with warnings about the config."""
    card = rewritten(finished, tmp_path, document(inputs), export_form="remote_code")
    assert card.count("from_pretrained(folder, trust_remote_code=True)") == 2


def test_the_card_tells_decisions_and_growth_with_their_reasons(finished, inputs, tmp_path):
    cycles = [
        cycle(1, decision=decision("prune", progress=0.25, steps=1200, reason="A | reason.")),
        cycle(2, grown={1: [0, 1, 4]}),
        cycle(3, grown={0: [2]}, accepted=False),
    ]
    card = rewritten(finished, tmp_path, document(inputs), cycles=cycles)
    assert "| 1 | prune | 25% | 0.0% | 1,200 | A \\| reason. |" in card
    grown = "1.1000 | 1.1500 | It paid \\| so it stayed. |"
    assert f"| 2 | random | attention, layer 1: 0-1, 4 | stands | {grown}" in card
    assert f"| 3 | random | attention, layer 0: 2 | undone | {grown}" in card


def test_a_run_without_a_controller_has_no_words_of_it(card):
    assert "What the controller decided" not in card
    assert "## Growth" not in card


def test_a_hub_models_commit_is_found_in_the_cache(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    sources = read_sources(parse_spec(document(inputs, model="someone/model")))
    assert sources.commit == snapshot.name
    assert sources.model == {"config.json": sha256(snapshot / "config.json")}


def test_a_builtin_models_files_are_digested(inputs):
    sources = read_sources(parse_spec(document(inputs, model="builtin/gpt2", data={"source": "builtin"})))
    assert sources.commit is None
    assert sources.model["model.safetensors"] == sha256(BUILTIN / "gpt2" / "model.safetensors")
    assert sources.text == {}


@pytest.mark.parametrize(("groups", "text"), [([], ""), ([4], "4"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7], "0, 2-3, 7")])
def test_ranges(groups, text):
    assert ranges(groups) == text
    assert numbers(text) == groups


def test_a_model_without_gguf_is_refused_before_anything_is_written(inputs, tmp_path):
    spec = parse_spec(document(inputs, model="builtin/gpt2"))
    with pytest.raises(ExportImpossible, match="gpt2"):
        experiment.run(spec, output=tmp_path, reporter=Silent())
    assert not (tmp_path / "checkpoint").exists()
