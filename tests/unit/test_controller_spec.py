import pytest
from pydantic import ValidationError

from sentinel.controller_spec import Controller


def test_the_rule_is_the_default():
    assert Controller() == Controller(kind="rule", state=None, explore=True)


@pytest.mark.parametrize("settings", [{"state": "checkpoint"}, {"explore": False}])
def test_what_only_a_learned_one_has_is_refused_to_the_rule(settings):
    assert Controller(kind="learned", **settings)
    with pytest.raises(ValidationError, match="go with `kind: learned`"):
        Controller(kind="rule", **settings)
