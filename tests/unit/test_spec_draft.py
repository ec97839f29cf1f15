"""First specs from three answers."""

import itertools

import pytest
import yaml

from sentinel.spec import parse_spec
from sentinel.spec_draft import (
    Draft,
    Purpose,
    PurposeUnclear,
    TargetUnclear,
    likely_purpose,
    parse_purpose,
    parse_target,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("30%", {"sparsity": 0.3}),
        (" 0.25 ", {"sparsity": 0.25}),
        ("60M", {"parameters": 60_000_000}),
        ("1.5 B", {"parameters": 1_500_000_000}),
        ("800K", {"parameters": 800_000}),
        ("12.5ms", {"latency_ms": 12.5}),
        ("kv_bytes=4096", {"kv_bytes": 4096}),
        ("flops=2e9", {"flops": 2e9}),
        ("flops=1.5B", {"flops": 1.5e9}),
        ("parameters=60M", {"parameters": 60_000_000}),
        ("kv_bytes=4K", {"kv_bytes": 4000}),
        ("sparsity=0.3%", {"sparsity": 0.003}),
        ("latency_ms=12ms", {"latency_ms": 12}),
    ],
)
def test_targets_are_read_as_people_say_them(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["", "much", "100%", "130%", "-3%", "1.2.3", "colour=3", "0M", "kv_bytes=1.5", "1e999M", "1e999", "flops=1e999"],
)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(TargetUnclear):
        parse_target(text)


@pytest.mark.parametrize("text", ["parameters=60%", "kv_bytes=4ms", "sparsity=3M", "latency_ms=12K"])
def test_a_unit_that_does_not_go_with_the_name_is_refused(text):
    with pytest.raises(TargetUnclear, match="is not said in"):
        parse_target(text)


def test_purposes_are_read_and_guessed():
    assert parse_purpose(" Speed") is Purpose.SPEED
    with pytest.raises(PurposeUnclear):
        parse_purpose("beauty")
    targets = ("12ms", "kv_bytes=1024", "30%")
    assert [likely_purpose(parse_target(text)) for text in targets] == [Purpose.SPEED, Purpose.CACHE, Purpose.SIZE]


MODELS = ("builtin/llama", "./a model: #1", "some/model")
TARGETS = ("30%", "60M", "12ms", "kv_bytes=4096", "flops=2e9")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_draft_is_a_valid_spec_that_says_what_was_answered(model, target):
    for purpose, heal in itertools.product(Purpose, (True, False)):
        text = Draft(model=model, target=parse_target(target), purpose=purpose, heal=heal).text("spec.yaml")
        spec = parse_spec(yaml.safe_load(text))
        assert spec.prune.target.model_dump(exclude_none=True) == parse_target(target)
        assert (spec.heal is not None) is heal
        assert getattr(spec.model, "path", None) == (model if model.startswith(".") else None)
        assert (spec.prune.units == ["attention"]) is (purpose is Purpose.CACHE)
        assert text.count("#") >= 8
