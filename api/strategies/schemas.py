"""Strategies as they cross HTTP."""

from typing import Any

from pydantic import BaseModel, Field

from sentinel.strategy_catalog import StrategyEntry


class StrategyView(StrategyEntry):
    """One strategy, and what a `prune` section that uses it must look like."""

    prune_schema: dict[str, Any] = Field(description="JSON Schema of the spec's `prune` section.")


class StrategyList(BaseModel):
    """Every strategy."""

    data: list[StrategyView]
