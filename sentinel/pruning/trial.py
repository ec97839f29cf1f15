"""Measures what a selection would do: cuts and repairs copies of layers, and compares predictions with the model's."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from sentinel.models.families.base import Site, Unit
from sentinel.models.optimized.surgery import layer_copy
from sentinel.prune_spec import CompensationName
from sentinel.pruning.calibration import Calibration, LayerwisePass
from sentinel.pruning.compensation import Cut, run_uncut
from sentinel.pruning.repair import repair_layer
from sentinel.utils.metrics import kl_divergences

# Groups to remove per site, ascending.
Removed = tuple[tuple[int, ...], ...]


class Trial:
    """KL(model ‖ model cut and repaired) of selections; the model itself stays as it is.

    Layers before the first one in which a selection differs from the settled one are not run again.

    Attributes:
        sites: The sites that selections speak of, in order.
        evaluations: Selections measured so far.
    """

    def __init__(self, calibration: Calibration, *, compensation: CompensationName | None) -> None:
        self.sites: list[Site] = calibration.sites()
        self.evaluations = 0
        self._calibration = calibration
        # Weights are worth improving for the selection that is taken, not for every candidate.
        self._compensation: CompensationName | None = (
            "residual_least_squares" if compensation == "reconstruction" else compensation
        )
        self._uncut = LayerwisePass(calibration)
        self._stream = LayerwisePass(calibration)
        self._layers = range(len(calibration.family.layers(calibration.model)))
        self._records = [run_uncut(calibration, layer, self._uncut) for layer in self._layers]
        self._settled: Removed = tuple(() for _ in self.sites)
        # Input of every layer with the settled selection.
        self._states = [record.hidden for record in self._records]
        self._known: dict[Removed, float] = {self._settled: 0.0}
        self._last, self._last_states = self._settled, self._states

    def divergence(self, removed: Removed) -> float:
        """Nats per token over the calibration windows, after the repair on the same windows."""
        if removed not in self._known:
            self.evaluations += 1
            self._known[removed], self._last_states = self._measure(removed)
            self._last = removed
        return self._known[removed]

    def settle(self, removed: Removed) -> float:
        """Start from this selection from now on; its divergence."""
        if removed != self._last:
            self._known[removed], self._last_states = self._measure(removed)
            self._last = removed
        self._states, self._settled = self._last_states, removed
        return self._known[removed]

    def _measure(self, removed: Removed) -> tuple[float, list[Sequence[torch.Tensor]]]:
        start = self._first_difference(removed)
        cut = as_cut(self.sites, removed)
        states = self._states[:start]
        self._stream.hidden = list(self._states[start])
        with ExitStack() as stack:
            for layer in self._layers[start:]:
                stack.enter_context(layer_copy(self._calibration.model, self._calibration.family, layer))
                states.append(self._stream.hidden)
                repair_layer(
                    self._calibration,
                    layer,
                    cut,
                    compensation=self._compensation,
                    stream=self._stream,
                    uncut=self._records[layer],
                )
        return self._kl(), states

    def _kl(self) -> float:
        pairs = zip(self._uncut.logits(), self._stream.logits(), strict=True)
        total = sum(float(kl_divergences(dense, pruned).double().sum()) for dense, pruned in pairs)
        windows, length = self._calibration.windows.shape
        return total / (windows * (length - 1))

    def _first_difference(self, removed: Removed) -> int:
        """First layer whose cut is not the settled one; the last layer where none differs."""
        differing = [
            site.layer for site, now, before in zip(self.sites, removed, self._settled, strict=True) if now != before
        ]
        return min(differing, default=self._layers[-1])


def as_cut(sites: Sequence[Site], removed: Sequence[Sequence[int]]) -> Cut:
    """Unit → layer → groups, of the sites that lose any."""
    cut: dict[Unit, dict[int, Sequence[int]]] = {}
    for site, groups in zip(sites, removed, strict=True):
        if groups:
            cut.setdefault(site.unit, {})[site.layer] = list(groups)
    return cut
