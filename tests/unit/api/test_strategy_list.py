"""The catalog of strategies."""

from typing import get_args

from api.strategies.service import catalog
from sentinel.prune_spec import ScoreName


def test_every_strategy_of_the_spec_is_described_once():
    assert [entry.name for entry in catalog().data] == [*get_args(ScoreName), "combined"]


def test_a_schema_fixes_its_own_strategy():
    schemas = {entry.name: entry.prune_schema for entry in catalog().data}
    assert {name: schema["properties"]["strategy"]["const"] for name, schema in schemas.items()} == {
        name: name for name in schemas
    }
    assert all(set(schema["required"]) == {"target", "strategy"} for schema in schemas.values())
