"""What every controller can do. Knows none of them."""

from pathlib import Path
from typing import Any, Protocol

from sentinel.controller.measurements import Measurements, Outcome
from sentinel.result import DecisionRecord


class Controller(Protocol):
    """Is asked before every cycle and told after it.

    Whatever it decides, the last cycle ends at the target, and no more healing steps are spent than there are.
    """

    def decide(self, now: Measurements) -> DecisionRecord:
        """What the cycle shall do. Asked twice with the same state and measurements, it answers the same."""

    def learn(self, outcome: Outcome) -> None:
        """Take in what the cycle that was decided last came to."""

    def state(self) -> dict[str, Any]:
        """All that it has to remember, as JSON: a controller made from it goes on as this one would."""

    def save(self, folder: Path) -> None:
        """Write what a later job can go on from into the checkpoint's folder, if there is any."""
