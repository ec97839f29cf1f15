"""A copy of the weights in the host's memory, to go back to."""

from collections.abc import Iterable

import torch
from torch import nn


class Snapshot:
    """The weights as they were last taken; one copy, made at once and written over from then on.

    Args:
        parameters: What is kept, in an order that stays.

    Attributes:
        copies: The kept weights, in that order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        pinned = self._parameters[0].device.type == "cuda"
        self.copies = [torch.empty_like(p, device="cpu", pin_memory=pinned) for p in self._parameters]
        self.take()

    @torch.no_grad()
    def take(self) -> None:
        """Keep the weights as they are now."""
        for copy, parameter in zip(self.copies, self._parameters, strict=True):
            copy.copy_(parameter)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the kept weights back."""
        for copy, parameter in zip(self.copies, self._parameters, strict=True):
            parameter.copy_(copy)
