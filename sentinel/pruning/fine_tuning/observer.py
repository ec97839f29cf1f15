"""Who hears of training, and who keeps its state. Knows neither a run's events nor its folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Observer:
    """Hears of training and does nothing about it; subclass it to."""

    def stepped(self, step: int, loss: float) -> None:
        """A step was taken.

        Args:
            step: Steps done, those left out included.
            loss: The batch's mean, in nats per token; of distillation with hidden states their distance included.
        """

    def measured(self, step: int, loss: float) -> None:
        """The held-out windows were measured: nats per token."""

    def noticed(self, text: str) -> None:
        """Something was out of the ordinary: a sentence that says what, at which step, and what was done about it."""


class Keeper(Protocol):
    """Keeps training states, so that a run that is killed can go on."""

    def due(self) -> bool:
        """Whether it is time for one; asked where healing could go on from."""

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep the model as it is now, and what `write` writes into a folder that exists."""
