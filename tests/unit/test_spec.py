import pytest
import yaml

from sentinel.errors import SpecInvalid
from sentinel.spec import Spec, load_document, parse_spec
from sentinel.spec_flags import flags, spec_from_arguments

MINIMAL = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}


def mistakes(document):
    with pytest.raises(SpecInvalid) as caught:
        parse_spec(document)
    return {error.pointer: error.code for error in caught.value.errors}


def test_a_model_and_a_target_are_enough():
    spec = parse_spec(MINIMAL)
    assert (spec.model.source, spec.model.id, spec.heal.loss) == ("builtin", "gpt2", "distill")


def test_a_resolved_spec_is_a_spec():
    spec = parse_spec(MINIMAL)
    assert parse_spec(spec.model_dump(mode="json")) == spec
    assert parse_spec(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec


@pytest.mark.parametrize(
    ("name", "source"),
    [("distilgpt2", "hub"), ("org/model", "hub"), ("./folder", "path"), ("builtin/llama", "builtin")],
)
def test_a_short_model_name_says_its_source(name, source):
    assert parse_spec({**MINIMAL, "model": name}).model.source == source


def test_all_mistakes_are_told_at_once_with_pointers():
    document = {
        "model": {"source": "hub", "id": "a b", "colour": "red"},
        "prune": {"target": {"sparsity": 2}, "cycles": 0},
        "data": {"source": "path"},
        "a/b": 1,
    }
    assert mistakes(document) == {
        "/model/id": "string_pattern_mismatch",
        "/model/colour": "extra_forbidden",
        "/prune/target/sparsity": "less_than",
        "/prune/cycles": "greater_than_equal",
        "/data/train": "missing",
        "/a~1b": "extra_forbidden",
    }


def test_pointers_of_a_short_model_name_and_of_an_unknown_source():
    assert mistakes({**MINIMAL, "model": "a b"}) == {"/model": "string_pattern_mismatch"}
    assert mistakes({**MINIMAL, "model": {"source": "ftp"}}) == {"/model": "union_tag_invalid"}
    assert mistakes([]) == {"": "model_type"}


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"target": {}}, "exactly one of sparsity, parameters, flops, kv_bytes, latency_ms"),
        ({"target": {"sparsity": 0.2, "flops": 5}}, "exactly one"),
        ({"units": ["mlp", "mlp"]}, "names a unit twice"),
        ({"strategy": "combined"}, "needs a `mix`"),
        ({"mix": {"taylor": 1}}, "goes with the strategy `combined`"),
        ({"strategy": "combined", "mix": {"combined": 1}}, "Input should be 'random'"),
        ({"strategy": "combined", "mix": {"taylor": 0}}, "greater than 0"),
        ({"strategy": "entropy", "units": ["attention", "mlp"]}, "scores attention only"),
        ({"strategy": "combined", "mix": {"entropy": 1}, "units": ["mlp"]}, "scores attention only"),
        ({"units": ["layer", "mlp"], "allocation": "global"}, "cannot be shared between `layer`"),
    ],
)
def test_what_does_not_fit_together_in_prune_is_refused(prune, message):
    with pytest.raises(SpecInvalid) as caught:
        parse_spec({"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}, **prune}})
    assert any(message in error.message for error in caught.value.errors)
    assert all(error.pointer.startswith("/prune") for error in caught.value.errors)


@pytest.mark.parametrize("kind", ["sparsity", "parameters", "flops", "kv_bytes", "latency_ms"])
def test_a_target_tells_its_kind_and_value(kind):
    value = 0.5 if kind == "sparsity" else 1000
    target = parse_spec({"model": "builtin/gpt2", "prune": {"target": {kind: value}}}).prune.target
    assert (target.kind, target.value) == (kind, value)


def test_every_field_is_documented_and_frozen():
    for flag in flags():
        assert flag.description, f"{flag.name} has no description"
    with pytest.raises(ValueError, match="frozen"):
        parse_spec(MINIMAL).seed = 3


def test_flags_say_what_a_file_says(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}, "cycles": 2}}))
    arguments = ["--model", "builtin/gpt2", "--prune.target.sparsity=0.5", "--prune.cycles", "2"]
    assert spec_from_arguments(arguments) == spec_from_arguments([str(file)])


def test_flags_override_a_file(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "heal": None}))
    spec = spec_from_arguments(
        [str(file), "--model.dtype", "bfloat16", "--heal.learning_rate", "1e-3", "--evaluate.prompts", "[Hi, Ho]"]
    )
    assert (spec.model.id, spec.model.dtype) == ("gpt2", "bfloat16")
    assert spec.heal.learning_rate == 1e-3
    assert spec.evaluate.prompts == ["Hi", "Ho"]
    assert spec_from_arguments([str(file), "--heal", "null"]).heal is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model"], "lacks a value"),
        (["--model", "x", "y"], "neither a flag"),
        (["absent.yaml"], "Cannot read the spec"),
        (["--name", "["], r"The value of --name, '\[', cannot be read"),
        (["--name", "2026-11-30"], "2026-11-30 is a date; write it in quotes"),
        (["--prune.target.sparsity", ".nan"], "nan is no number of JSON"),
        (["--seed", "1:20"], "to base 60"),
        (["--evaluate.prompts", "&a [*a]"], "nested without end"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(SpecInvalid, match=message):
        spec_from_arguments(arguments)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- 1")
    with pytest.raises(SpecInvalid, match="must be a mapping"):
        load_document(file)
    file.write_text("a: [")
    with pytest.raises(SpecInvalid, match="Cannot read"):
        load_document(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: 2026-11-30", "2026-11-30 is a date; write it in quotes"),
        ("name: 2026-13-45", "2026-13-45 is a date; write it in quotes"),
        ("seed: .inf", "inf is no number of JSON"),
        ("1: x", "names of fields must be text"),
        ("heal: null\nprune: {}\nheal: {steps: 9}", "the field 'heal' stands twice"),
        ('{"prune": {"cycles": 1, "cycles": 2}}', "the field 'cycles' stands twice"),
        ("[a]: x", "unhashable key"),
        ("a: !!set {x}", "neither text, number"),
        ("a: &a {b: *a}", "nested without end"),
    ],
)
def test_a_file_with_values_that_no_document_has_is_refused(tmp_path, text, message):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SpecInvalid, match=message):
        load_document(tmp_path / "spec.yaml")


def test_mappings_of_a_file_may_be_merged(tmp_path):
    text = "one: &one {a: 1, b: 1}\nother: &other {c: 3}\nboth: {<<: *one, <<: *other, b: 2}"
    (tmp_path / "spec.yaml").write_text(text)
    assert load_document(tmp_path / "spec.yaml")["both"] == {"a": 1, "b": 2, "c": 3}


def test_flags_say_every_part_of_prune():
    arguments = ["--model", "builtin/gpt2", "--prune.target.flops", "2e6", "--prune.units", "[attention, mlp]"]
    arguments += [
        "--prune.search.evaluations",
        "50",
        "--prune.strategy",
        "combined",
        "--prune.mix",
        "{taylor: 1, obs: 2}",
    ]
    prune = spec_from_arguments(arguments).prune
    assert (prune.target.kind, prune.units, prune.search.evaluations) == ("flops", ["attention", "mlp"], 50)
    assert prune.mix == {"taylor": 1, "obs": 2}


def test_flags_cover_the_whole_spec():
    names = {flag.name for flag in flags()}
    assert {"--model.path", "--data.splits.train", "--prune.target.sparsity", "--heal.steps", "--device"} <= names
    assert len(names) > len(Spec.model_fields)


def test_one_hub_split_for_both_uses_is_refused():
    data = {"source": "hub", "id": "stories", "splits": {"train": "train", "evaluation": "train"}}
    assert mistakes({**MINIMAL, "data": data}) == {"/data/splits": "value_error"}
    data["splits"] = {"train": "train[:90%]", "evaluation": "train[90%:]"}
    assert parse_spec({**MINIMAL, "data": data}).data.splits.evaluation == "train[90%:]"


@pytest.mark.parametrize("name", ["..", "../other", "stories/..", ".", "/etc", "a/b/c"])
def test_a_dataset_id_is_no_folder(name):
    assert mistakes({**MINIMAL, "data": {"source": "hub", "id": name}}) == {"/data/id": "string_pattern_mismatch"}


@pytest.mark.parametrize(
    ("sections", "needed"),
    [
        ({}, False),
        ({"model": "/models/one", "data": {"source": "path", "train": "a.txt"}}, False),
        ({"model": "someone/model"}, True),
        ({"data": {"source": "hub", "id": "someone/text"}}, True),
        ({"evaluate": {"tasks": ["piqa"]}}, True),
    ],
    ids=str,
)
def test_only_what_is_fetched_needs_a_network(sections, needed):
    assert parse_spec(MINIMAL | sections).needs_network is needed


def test_of_very_many_mistakes_the_first_are_told():
    with pytest.raises(SpecInvalid, match="100 mistakes or more; these are the first") as caught:
        parse_spec({f"field_{number}": 1 for number in range(990)})
    assert [error.pointer for error in caught.value.errors][:4] == ["/model", "/prune", "/field_0", "/field_1"]
    assert len(caught.value.errors) == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heal": None}, "`grow` needs `heal`"),
        ({"grow": {"initialization": "split"}, "export": {"form": "masked"}}, "masked` has no place for groups"),
        ({"prune": {"target": {"sparsity": 0.5}}}, "needs `prune.cycles` of 2 or more"),
        ({"prune": {"target": {"sparsity": 0.5}, "cycles": 2, "units": ["layer"]}}, "not whole `layer`s"),
        (
            {
                "prune": {"target": {"sparsity": 0.5}, "cycles": 2, "units": ["attention", "mlp"]},
                "grow": {"strategy": "entropy_gap"},
            },
            "looks at attention only",
        ),
        ({"grow": None, "controller": {"kind": "rule"}, "heal": None}, "`controller` decides about cycles"),
    ],
)
def test_growth_and_controllers_need_cycles_that_heal(changes, message):
    document = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}, "cycles": 2}, "grow": {}}
    assert parse_spec(document).grow is not None
    with pytest.raises(SpecInvalid) as caught:
        parse_spec({**document, **changes})
    (error,) = caught.value.errors
    assert message in error.message
