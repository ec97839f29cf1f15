"""What is to be learnt: a model, its parameters, an objective and windows of tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedModel

from sentinel.pruning.fine_tuning.objectives import Objective


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One healing's matter.

    Attributes:
        model: Is trained in place.
        parameters: What of it is learnt, by name.
        objective: What is made smaller.
        windows: int64 (windows, sequence_length), on the model's device.
        held_out: The same, never learnt from; None measures nothing.
        batch_windows: Windows per optimiser step.
        steps: Optimiser steps.
        seed: Of the windows' order.
        factors: Per parameter how much faster its numbers learn.
        factor_warmup: Steps in which the factors rise linearly from 1.
    """

    model: PreTrainedModel
    parameters: Mapping[str, nn.Parameter]
    objective: Objective
    windows: Tensor
    held_out: Tensor | None
    batch_windows: int
    steps: int
    seed: int
    factors: Mapping[nn.Parameter, Tensor] = field(default_factory=dict)
    factor_warmup: int = 0

    def factor_share(self, step: int) -> float:
        """How much of the factors there is in a step, counted from 1."""
        return min(1.0, step / self.factor_warmup) if self.factor_warmup else 1.0

    def tokens(self, rows: Tensor) -> Tensor:
        """The windows of these numbers."""
        return self.windows[rows.to(self.windows.device)]
