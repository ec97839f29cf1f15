"""The strategies with their JSON Schemas. Knows no HTTP."""

from typing import Any

from api.strategies.schemas import StrategyList, StrategyView
from sentinel.prune_spec import Prune
from sentinel.strategy_catalog import STRATEGIES, StrategyEntry


def catalog() -> StrategyList:
    """Every strategy."""
    return StrategyList(data=[StrategyView(**entry.model_dump(), prune_schema=_schema(entry)) for entry in STRATEGIES])


def _schema(entry: StrategyEntry) -> dict[str, Any]:
    """The `prune` section's schema with this strategy chosen."""
    schema = Prune.model_json_schema()
    schema["properties"]["strategy"] = {"const": entry.name, "description": entry.summary}
    schema["required"] = [*schema["required"], "strategy"]
    return schema
