"""What `evaluate.stress` may say."""

import pytest

from sentinel.data_spec import BuiltinData
from sentinel.errors import SpecInvalid
from sentinel.spec import parse_spec
from sentinel.spec_flags import spec_from_arguments

FILE = {"source": "path", "train": "a.txt"}


def spec(stress, **sections):
    document = {"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}, "evaluate": {"stress": stress}}
    return parse_spec(document | sections)


def mistakes(stress, **sections):
    with pytest.raises(SpecInvalid) as caught:
        spec(stress, **sections)
    return {error.pointer: error.message for error in caught.value.errors}


def test_nothing_is_measured_unless_it_is_asked_for():
    assert spec(None).evaluate.stress is None
    assert spec(None).evaluate.domains == {}


def test_an_empty_section_asks_for_everything():
    stress = spec({}).evaluate.stress
    assert stress.domains == {"programs": BuiltinData(id="programs")}
    assert stress.other_domain == "programs"
    assert None not in (stress.probes, stress.alternation, stress.damage)


def test_a_dumped_section_says_the_same():
    asked = spec({"domains": {"plays": FILE, "code": {"source": "builtin", "id": "programs"}}, "damage": None})
    assert parse_spec(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(("named", "other"), [(None, "plays"), ("code", "code")])
def test_the_other_domain_is_the_first_or_the_named_one(named, other):
    domains = {"plays": FILE, "code": {"source": "builtin", "id": "programs"}}
    assert spec({"domains": domains, "alternation": {"domain": named}}).evaluate.stress.other_domain == other


@pytest.mark.parametrize(
    ("stress", "pointer", "message"),
    [
        ({"domains": {}}, "/evaluate/stress/domains", "at least 1"),
        ({"domains": {"data": FILE}}, "/evaluate/stress", "give the domain another name"),
        ({"alternation": {"domain": "plays"}}, "/evaluate/stress", "none of the domains: programs"),
        ({"domains": {"a/b": FILE}}, "/evaluate/stress/domains/a~1b/[key]", "match pattern"),
        ({"domains": {"a": {"source": "path"}}}, "/evaluate/stress/domains/a/train", "required"),
        ({"domains": {"a": {"source": "upload"}}}, "/evaluate/stress/domains/a", "'hub', 'path', 'builtin'"),
        ({"domains": {"a": FILE | {"isolate_documents": True}}}, "", "not in the domain a"),
        ({"damage": {"strategy": "combined"}}, "/evaluate/stress/damage/strategy", "Input should be"),
    ],
)
def test_what_does_not_fit_is_refused(stress, pointer, message):
    assert message in mistakes(stress)[pointer]


def test_documents_kept_apart_are_so_everywhere():
    data = {"source": "builtin", "isolate_documents": True}
    assert spec({"domains": {"a": FILE}}, data=data).data.isolate_documents
    assert spec({"domains": {"a": FILE | {"isolate_documents": True}}}, data=data).evaluate.domains


def test_a_domain_of_the_hub_needs_a_network():
    assert not spec({"domains": {"a": FILE}}).needs_network
    assert spec({"domains": {"a": {"source": "hub", "id": "someone/text"}}}).needs_network


def test_flags_say_it_too():
    flags = ["--model", "builtin/llama", "--prune.target.sparsity", "0.5", "--evaluate.stress.damage", "null"]
    flags += ["--evaluate.stress.domains.plays", "{source: path, train: a.txt}", "--evaluate.stress.probes.sequences=9"]
    stress = spec_from_arguments(flags).evaluate.stress
    assert (stress.damage, stress.probes.sequences, stress.domains["plays"].train) == (None, 9, "a.txt")


def test_training_is_on_as_much_text_as_it_can_use():
    stress = spec(
        {"alternation": {"rounds": 3, "steps": 5}, "damage": {"steps": 7}, "batch_tokens": 10}
    ).evaluate.stress
    assert (stress.alternation_tokens, stress.healing_tokens) == (150, 70)
    none = spec({"alternation": None, "damage": None}).evaluate.stress
    assert (none.alternation_tokens, none.healing_tokens) == (0, 0)
    assert stress.training(7).loss == "cross_entropy"
