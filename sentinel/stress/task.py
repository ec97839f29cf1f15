"""What a model learns and is measured on in a stress test."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One text; windows are int64 (windows, sequence_length), on the model's device.

    Attributes:
        name: What results call it.
        training: To learn.
        evaluation: To measure; nothing learns from it.
    """

    name: str
    training: Tensor
    evaluation: Tensor
