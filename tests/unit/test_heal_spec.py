import pytest

from sentinel.errors import SpecInvalid
from sentinel.spec import parse_spec


def heal(**settings):
    return parse_spec({"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}}, "heal": settings}).heal


def test_a_level_that_recovers_is_the_default():
    assert heal().stability_level == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cross_entropy", "teacher_top_k": 8}, "need `loss: distill`"),
        ({"loss": "cross_entropy", "hidden_weight": 1}, "need `loss: distill`"),
        ({"teacher_top_k": 8, "hidden_weight": 1}, "leave `teacher_top_k` out"),
        ({"patience": 3}, "`evaluate_every`"),
        ({"stability_level": 4}, "0, 1, 2 or 3"),
        ({"precision": "int8"}, "float16"),
        ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ({"temperature": 1e200}, "less than or equal to 1000000"),
        ({"epochs": 1e308}, "less than or equal to 1000000"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(SpecInvalid) as raised:
        heal(**settings)
    (error,) = raised.value.errors
    assert message in error.message
    assert error.pointer.startswith("/heal")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "use bfloat16 or float32, or `heal.method: lora`"),
        ({"heal": {"precision": "float16"}}, "use bfloat16 or float32, or `heal.method: lora`"),
        ({"heal": None, "evaluate": {"stress": {"damage": None}}}, "set its `alternation` and `damage` to null"),
        ({"heal": {"method": "lora"}, "evaluate": {"stress": {"alternation": None}}}, "`evaluate.stress` trains"),
    ],
)
def test_all_weights_of_float16_are_not_learnt(sections, message):
    document = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.5}}, **sections}
    parse_spec(document)
    document["model"] = {"source": "builtin", "dtype": "float16"}
    with pytest.raises(SpecInvalid) as raised:
        parse_spec(document)
    assert message in raised.value.errors[0].message


@pytest.mark.parametrize(
    "sections",
    [
        {"heal": {"method": "lora"}},
        {"heal": None, "evaluate": {"stress": {"alternation": None, "damage": None}}},
    ],
)
def test_float16_is_for_what_learns_none_of_them(sections):
    model = {"source": "builtin", "dtype": "float16"}
    assert parse_spec({"model": model, "prune": {"target": {"sparsity": 0.5}}, **sections})
