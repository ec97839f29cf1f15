"""Which groups are left at the end."""

from collections.abc import Sequence

import altair as alt

from sentinel.manifest import Unit
from sentinel.pruning.visualization.group_map import group_map, size_of
from sentinel.pruning.visualization.group_states import GROUP_NAMES, states_at_end
from sentinel.pruning.visualization.style import styled


def kept_groups(kept: Sequence[Sequence[int]], dense_counts: Sequence[int], *, unit: Unit) -> alt.LayerChart:
    """Layers × groups, kept ones filled, removed ones pale; of neurons one bar per layer.

    Args:
        kept: Per layer, the groups that are left.
        dense_counts: Per layer, how many the dense model has.
        unit: Which they are of.
    """
    title = f"{sum(map(len, kept)):,} {GROUP_NAMES[unit]}s; the dense model has {sum(dense_counts):,}"
    states = states_at_end(kept, dense_counts)
    return styled(group_map(states, unit=unit).properties(**size_of(states)._asdict()), title=title)
