"""What every strategy is, in words: for people who choose one, and for forms. Torch-free.

The code that computes each is in `pruning/strategies`, under the same name.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sentinel.spec import StrategyName

Need = Literal["weights", "attention maps", "gradients"]


class StrategyEntry(BaseModel):
    """One strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrategyName = Field(description="As `prune.strategy` says it.")
    summary: str = Field(description="What it keeps and what it removes.")
    formula: str = Field(description="Importance of group h; higher is kept.")
    source: str = Field(description="Where the formula comes from.")
    needs: list[Need] = Field(description="What it looks at.")
    cost: str = Field(description="Work per scoring.")


WEIGHTS_ONLY = "No forward pass."
STRATEGIES = (
    StrategyEntry(
        name="random",
        summary="Removes groups by a seeded draw: the control that every other strategy has to beat.",
        formula="uniform(0, 1), from the spec's seed",
        source="baseline",
        needs=[],
        cost=WEIGHTS_ONLY,
    ),
    StrategyEntry(
        name="magnitude",
        summary="Keeps the groups with the largest weights.",
        formula="‖W_q,h‖² + ‖W_k,h‖² + ‖W_v,h‖² + ‖W_o,h‖²",
        source="baseline",
        needs=["weights"],
        cost=WEIGHTS_ONLY,
    ),
    StrategyEntry(
        name="entropy",
        summary="Keeps heads that attend to few tokens; heads that spread their attention go first.",
        formula="−mean over rows of Σ_j −a_ij log a_ij, for attention a of head h",
        source="attention entropy",
        needs=["attention maps"],
        cost="One forward pass over the calibration text, with attention maps.",
    ),
    StrategyEntry(
        name="taylor",
        summary="Keeps the groups whose gate changes the loss the most, to first order.",
        formula="E over windows of |∂loss/∂m_h|, m_h the gate of h",
        source="Michel et al. 2019, Are Sixteen Heads Really Better than One?",
        needs=["weights", "gradients"],
        cost="One forward and backward pass over the calibration text, for the gates only.",
    ),
)
