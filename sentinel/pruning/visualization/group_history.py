"""Which groups every cycle cut and grew."""

from collections.abc import Sequence

import altair as alt

from sentinel.manifest import Unit
from sentinel.pruning.visualization.group_map import group_map, size_of
from sentinel.pruning.visualization.group_states import GROUP_NAMES, states_over_cycles
from sentinel.pruning.visualization.style import panels, styled
from sentinel.result import CycleRecord


def group_history(cycles: Sequence[CycleRecord], dense_counts: Sequence[int], *, unit: Unit) -> alt.FacetChart:
    """Layers × groups after every cycle; of neurons one bar per layer.

    Args:
        cycles: What every cycle did.
        dense_counts: Per layer, how many groups the dense model has.
        unit: Which they are of.
    """
    states = states_over_cycles(cycles, dense_counts, unit)
    maps = panels(group_map(states, unit=unit), "cycle", **size_of(states)._asdict())
    return styled(maps, title=f"What every cycle did to the {GROUP_NAMES[unit]}s")
