"""What every strategy is, in words: for people who choose one, and for forms. Torch-free.

The code that computes each is in `pruning/strategies`, under the same name.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sentinel.prune_spec import StrategyName

Need = Literal["weights", "attention maps", "input moments", "gradients", "closed gates", "other strategies"]


class StrategyEntry(BaseModel):
    """One strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrategyName = Field(description="As `prune.strategy` says it.")
    summary: str = Field(description="What it keeps and what it removes.")
    formula: str = Field(description="Importance of group h; higher is kept.")
    source: str = Field(description="Where the formula comes from.")
    needs: list[Need] = Field(description="What it looks at.")
    cost: str = Field(description="Work per scoring.")


OF_WEIGHTS = "No forward pass."
OF_MOMENTS = "One forward pass over the calibration text, layer by layer; a few windows backward for κ."
OF_GATES = "One forward and backward pass over the calibration text, for the gates only."
STRATEGIES = (
    StrategyEntry(
        name="random",
        summary="Removes groups by a seeded draw: the control that every other strategy has to beat.",
        formula="uniform(0, 1), from the spec's seed",
        source="baseline",
        needs=[],
        cost=OF_WEIGHTS,
    ),
    StrategyEntry(
        name="magnitude",
        summary="Keeps the groups with the largest weights.",
        formula="Σ ‖W_h‖² over the group's slices of all its projections",
        source="baseline",
        needs=["weights"],
        cost=OF_WEIGHTS,
    ),
    StrategyEntry(
        name="entropy",
        summary="Keeps heads that attend to few tokens; heads that spread their attention go first. Attention only.",
        formula="ln T − mean over rows of Σ_j −a_ij ln a_ij, for attention a of head h over windows of T tokens",
        source="attention entropy",
        needs=["attention maps"],
        cost="One forward pass over the calibration text, with attention maps.",
    ),
    StrategyEntry(
        name="energy",
        summary="Keeps the groups whose zeroing changes their layer's output the most.",
        formula="½ κ tr(W_h C_hh W_hᵀ), C = E[x xᵀ], κ = E‖∂log p/∂y‖² per output feature",
        source="exact output error of zeroing a group",
        needs=["weights", "input moments", "gradients"],
        cost=OF_MOMENTS,
    ),
    StrategyEntry(
        name="wanda",
        summary="Keeps large weights that are multiplied with large inputs.",
        formula="Σ_ij |W_ij| √C_jj over the slice, as a share of the site",
        source="Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models",
        needs=["weights", "input moments"],
        cost="One forward pass over the calibration text, layer by layer.",
    ),
    StrategyEntry(
        name="fluctuation",
        summary="Keeps the groups whose output varies; one that is constant can be replaced by a bias.",
        formula="½ κ tr(W_h Σ_hh W_hᵀ), Σ = C − μμᵀ",
        source="An et al. 2023, Fluctuation-based Adaptive Structured Pruning (FLAP)",
        needs=["weights", "input moments", "gradients"],
        cost=OF_MOMENTS,
    ),
    StrategyEntry(
        name="taylor",
        summary="Keeps the groups whose gate changes the loss the most, to first order.",
        formula="E over windows of |∂loss/∂m_h|, m_h the gate of h",
        source="Michel et al. 2019, Are Sixteen Heads Really Better than One?",
        needs=["weights", "gradients"],
        cost=OF_GATES,
    ),
    StrategyEntry(
        name="fisher",
        summary="Keeps the groups whose removal, together with the others', changes the predictions the most.",
        formula="½ 1_Sᵀ F 1_S, F = E[z zᵀ], z = ∂log p(y)/∂m, y sampled from the model; greedy, then swaps",
        source="Kwon et al. 2022, A Fast Post-Training Pruning Framework, with sampled labels",
        needs=["weights", "gradients"],
        cost=OF_GATES,
    ),
    StrategyEntry(
        name="obs",
        summary="Keeps the groups that the others cannot make up for, even after the best linear repair.",
        formula="½ κ tr(W_h [(C⁻¹)_hh]⁻¹ W_hᵀ), W and C⁻¹ down-dated after every removal",
        source="Kurtic et al. 2023 (ZipLM); Ling et al. 2024 (SlimGPT)",
        needs=["weights", "input moments", "gradients"],
        cost=OF_MOMENTS,
    ),
    StrategyEntry(
        name="ablation",
        summary="Measures every group by closing it alone: the oracle that cheaper scores are held against.",
        formula="KL(dense ‖ model without h) in nats per token",
        source="single-group ablation",
        needs=["closed gates"],
        cost="A forward pass of 8 calibration windows for every group.",
    ),
    StrategyEntry(
        name="learned",
        summary="Learns which gates to keep open while ever fewer may be; keeps the groups whose gates last longest.",
        formula="mean over the steps of P(m_h ≠ 0), m hard concrete, min KL(dense ‖ gated), Σ P(m ≠ 0) falling to none",
        source="Louizos et al. 2018, Learning Sparse Neural Networks through L0 Regularization, for gates alone",
        needs=["gradients"],
        cost="40 steps of up to 8 calibration windows, each two forward and one backward pass, for the gates only.",
    ),
    StrategyEntry(
        name="combined",
        summary="Mixes the opinions of other strategies by rank, as `prune.mix` weighs them.",
        formula="Σ_i w_i · rank_i(h) / groups",
        source="rank aggregation",
        needs=["other strategies"],
        cost="The sum of the strategies that are mixed.",
    ),
)
