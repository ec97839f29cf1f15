"""The HTTP side of strategies."""

from fastapi import APIRouter

from api.strategies import service
from api.strategies.schemas import StrategyList

router = APIRouter(prefix="/strategies", tags=["strategies"])


@router.get("", summary="What can compute importance")
def catalog() -> StrategyList:
    """Every strategy with its formula, its cost and a JSON Schema."""
    return service.catalog()
