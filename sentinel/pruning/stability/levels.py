"""What each stability level adds: the table of docs/healing.md, as code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stability:
    """What a level does; every level does what the ones below it do.

    Attributes:
        level: 0 to 3.
    """

    level: int

    @property
    def clips(self) -> bool:
        """Gradients are scaled down to the largest norm allowed."""
        return self.level >= 1

    @property
    def leaves_out(self) -> bool:
        """A step whose loss or gradient is not finite is left out."""
        return self.level >= 1

    @property
    def puts_back(self) -> bool:
        """So is one whose loss jumps; after two in a row the last good weights are put back and the rate is halved."""
        return self.level >= 2

    @property
    def halves(self) -> bool:
        """A micro-batch that does not fit in memory is halved."""
        return self.level >= 2

    @property
    def repeats_in_float32(self) -> bool:
        """A step that is not finite in a smaller type is repeated in float32."""
        return self.level >= 3

    @property
    def inspects(self) -> bool:
        """At every step left out the layer is named, and weights are checked before they are kept."""
        return self.level >= 3
